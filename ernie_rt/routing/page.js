"use strict";
// Points from tokens to cells of the map and back. The data are what page.py wrote; nothing else is read.
const data = JSON.parse(document.getElementById("data").textContent);
const tokens = [...document.querySelectorAll(".strip span")];
const map = document.querySelector(".map");
const said = document.getElementById("said");
const body = document.querySelector(".routes tbody");
const SVG = "http://www.w3.org/2000/svg";

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function outline(kind) {
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("class", kind);
  map.append(path);
  return path;
}

const marks = outline("marks");
const here = outline("here");

function square(row, expert) {
  const { left, top, pitch, cell } = data.grid;
  return `M${left + expert * pitch} ${top + row * pitch}h${cell}v${cell}h-${cell}z`;
}

function weightBar(weight) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 7");
  const bar = document.createElementNS(SVG, "rect");
  bar.setAttribute("width", String(100 * weight));
  bar.setAttribute("height", "7");
  svg.append(bar);
  return svg;
}

// The experts of a token, layer by layer: outlined in the map, and in the table with their weights.
function choose(place) {
  tokens.forEach((token, i) => {
    token.classList.remove("goes");
    token.classList.toggle("chosen", i === place);
    token.setAttribute("aria-pressed", String(i === place));
    token.tabIndex = i === place ? 0 : -1;
  });
  here.setAttribute("d", "");
  let path = "";
  body.replaceChildren();
  data.routers.forEach((router, row) => {
    const line = document.createElement("tr");
    line.append(element("td", `layer ${router.layer}`));
    router.experts[place].forEach((expert, i) => {
      if (expert < 0) return;
      path += square(row, expert);
      const weight = router.weights[place][i] / 1000;
      const other = router.instead[place][i];
      const cell = element("td", `${expert} `);
      if (other >= 0) cell.append(element("span", `for ${other} `, "bias"));
      cell.append(`${Math.round(100 * weight)}%`, weightBar(weight));
      line.append(cell);
    });
    body.append(line);
  });
  marks.setAttribute("d", path);
  said.textContent = `token ${place}: ${JSON.stringify(tokens[place].dataset.text)}`;
}

// The tokens that went to an expert of a layer.
function point(row, expert) {
  const router = data.routers[row];
  marks.setAttribute("d", "");
  here.setAttribute("d", square(row, expert));
  tokens.forEach((token, i) => {
    token.classList.remove("chosen");
    token.classList.toggle("goes", router.experts[i].includes(expert));
  });
  const share = (100 * router.counts[expert]) / router.tokens;
  said.textContent =
    `layer ${router.layer}, expert ${expert}: ${router.counts[expert]} of ${router.tokens} tokens` +
    ` (${share.toFixed(1)}%)`;
}

function cellAt(event) {
  const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
  const { left, top, pitch } = data.grid;
  const row = Math.floor((place.y - top) / pitch);
  const expert = Math.floor((place.x - left) / pitch);
  const router = data.routers[row];
  return router && expert >= 0 && expert < router.counts.length ? [row, expert] : null;
}

for (const kind of ["pointermove", "click"]) {
  map.ownerSVGElement.addEventListener(kind, (event) => {
    const found = cellAt(event);
    if (found) point(...found);
  });
}
tokens.forEach((token, place) => {
  for (const kind of ["pointerenter", "focus", "click"]) token.addEventListener(kind, () => choose(place));
  token.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = step && tokens[place + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
});
if (tokens.length) choose(0);
