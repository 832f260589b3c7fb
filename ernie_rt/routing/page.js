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

// What shows each token: its place in the text and, of a picture, a square of it.
const shows = tokens.map((token) => [token]);
const squares = [...document.querySelectorAll(".patches")].flatMap((group) => {
  const { start, count, columns, side } = group.dataset; // texts, which arithmetic takes as numbers
  return Array.from({ length: Number(count) }, (_, i) => {
    const square = document.createElementNS(SVG, "rect");
    const [row, column] = [Math.floor(i / columns), i % columns];
    for (const [name, value] of Object.entries({ x: column * side, y: row * side, width: side, height: side })) {
      square.setAttribute(name, String(value));
    }
    group.append(square);
    const place = Number(start) + i;
    shows[place]?.push(square);
    return { square, place };
  });
});

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
  shows.forEach((shown, i) => {
    for (const each of shown) {
      each.classList.remove("goes");
      each.classList.toggle("chosen", i === place);
    }
    tokens[i].setAttribute("aria-pressed", String(i === place));
    tokens[i].tabIndex = i === place ? 0 : -1;
  });
  here.setAttribute("d", "");
  let path = "";
  body.replaceChildren();
  data.routers.forEach((router, row) => {
    const line = document.createElement("tr");
    line.append(element("td", router.name));
    if (!router.experts[place].length) return;
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
  shows.forEach((shown, i) => {
    for (const each of shown) {
      each.classList.remove("chosen");
      each.classList.toggle("goes", router.experts[i].includes(expert));
    }
  });
  const share = (100 * router.counts[expert]) / router.tokens;
  said.textContent =
    `${router.name}, expert ${expert}: ${router.counts[expert]} of ${router.tokens} tokens` +
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

// Pictures: each square by the expert that has most of its token, or by how evenly the weights are spread.
const [shownRouter, shownBy] = ["shown-router", "shown-by"].map((id) => document.getElementById(id));
const LARGEST_STEP = 137.508; // degrees: neighbours among experts get colours far apart

function spread(weights) {
  const sum = weights.reduce((a, b) => a + b, 0);
  const shares = weights.map((weight) => weight / sum).filter((share) => share > 0);
  return weights.length > 1 ? -shares.reduce((a, p) => a + p * Math.log(p), 0) / Math.log(weights.length) : 0;
}

function colour() {
  const router = data.routers[Number(shownRouter.value)];
  for (const { square, place } of squares) {
    const [experts, weights] = [router.experts[place] ?? [], router.weights[place]];
    const by = experts.length ? shownBy.value : "none";
    const largest = by === "none" ? 0 : experts[weights.indexOf(Math.max(...weights))];
    square.setAttribute("fill", by === "expert" ? `hsl(${(largest * LARGEST_STEP) % 360} 85% 50%)` : "hsl(215 90% 50%)");
    square.setAttribute("fill-opacity", String(by === "none" ? 0 : by === "expert" ? 0.45 : 0.9 * spread(weights)));
  }
}

if (squares.length) {
  const first = squares[0].place;
  data.routers.forEach((router, row) => {
    if (!router.experts[first]?.length) return;
    const option = element("option", router.name);
    option.value = String(row);
    shownRouter.append(option);
  });
  for (const control of [shownRouter, shownBy]) control.addEventListener("input", colour);
  document.getElementById("colouring").addEventListener("submit", (event) => event.preventDefault());
  for (const { square, place } of squares) {
    if (!tokens[place]) continue;
    for (const kind of ["pointerenter", "click"]) square.addEventListener(kind, () => choose(place));
  }
  if (shownRouter.options.length) colour();
}
if (tokens.length) choose(0);
