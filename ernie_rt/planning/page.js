"use strict";
// Draws what a model takes, anew for each place of the sliders. The data are what page.py wrote; nothing else is read.
const data = JSON.parse(document.getElementById("data").textContent);
const [context, sequences, device] = ["context", "sequences", "device"].map((id) => document.getElementById(id));
const parts = [...new Set(data.bars.flatMap((bar) => Object.keys(bar.weights))), "KV cache", "workspace"];
const COLOURS = 10;

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function humanBytes(count) {
  let unit = 0;
  while (count >= 1024 && unit < 4) {
    count /= 1024;
    unit += 1;
  }
  return `${count.toFixed(unit ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

function humanTokens(count) {
  return count % 1024 ? String(count) : `${count / 1024}k`;
}

// Bytes by part at a place of the sliders, in the order of the legend.
function billed(bar, c, s) {
  const bytes = { ...bar.weights, "KV cache": bar.cache[c][s], workspace: bar.workspace[c][s] };
  return parts.map((part) => bytes[part] ?? 0);
}

// FLOPs a second of what a device multiplies; what it does not multiply by itself, it widens.
function peak({ flops }, products) {
  return flops[products] || flops.float32 || Math.min(...Object.values(flops));
}

// Tokens a second of all sequences together, each with as many rows of cache as the context has; null: not predicted.
function speed(bar, c, s, chosen) {
  if (!bar.decode || !chosen.bandwidth || !Object.keys(chosen.flops).length) return null;
  const { weight_bytes, row_bytes, flops, seconds } = bar.decode;
  const [rows, count] = [data.contexts[c], data.sequences[s]];
  const reading = (weight_bytes[s] + count * rows * row_bytes) / chosen.bandwidth;
  const computing = Object.entries(flops)
    .map(([products, [token, row]]) => (count * (token + rows * row)) / peak(chosen, products))
    .reduce((sum, each) => sum + each, 0);
  return count / (Math.max(reading, computing) + seconds);
}

// Whether it fits, in words and as a class.
function verdict(bar, total, room) {
  if (total <= room) return [`fits, ${humanBytes(room - total)} to spare`, "fits"];
  const held = total - bar.mapped_bytes;
  if (held <= room) return [`fits, but reads ${humanBytes(total - room)} from disk again and again`, "reads"];
  return [`${humanBytes(held - room)} too much`, "bad"];
}

function drawn(bar, c, s, chosen, widest) {
  const bytes = billed(bar, c, s);
  const total = bytes.reduce((sum, each) => sum + each, 0);
  const [said, kind] = verdict(bar, total, chosen.room);
  const rate = kind === "fits" ? speed(bar, c, s, chosen) : null;
  const tokens = rate === null ? "" : `${Number(rate.toPrecision(2))} tokens/s`;
  const block = element("section", "", "bar");
  const head = element("p", "");
  head.append(element("b", bar.name), element("span", humanBytes(total)), element("span", said, kind));
  if (tokens) head.append(element("span", `about ${tokens}`));
  const stack = element("div", "", "stack");
  stack.setAttribute("role", "img");
  const named = parts.map((part, i) => `${part} ${humanBytes(bytes[i])}`).filter((_, i) => bytes[i]);
  stack.setAttribute("aria-label", `${bar.name}: ${named.join(", ")}`);
  bytes.forEach((each, i) => {
    if (!each) return;
    const piece = element("div", "", `p${i % COLOURS}`);
    piece.style.width = `${(100 * each) / widest}%`;
    piece.title = `${parts[i]} ${humanBytes(each)}`;
    stack.append(piece);
  });
  if (chosen.room <= widest) {
    const line = element("div", "", "line");
    line.style.left = `${(100 * chosen.room) / widest}%`;
    stack.append(line);
  }
  block.append(head, stack);
  const row = element("tr", "", kind);
  row.append(...[bar.name, ...bytes.map(humanBytes), humanBytes(total), said, tokens].map((cell) => element("td", cell)));
  return { block, row, kind };
}

function draw() {
  const [c, s] = [Number(context.value), Number(sequences.value)];
  const chosen = data.devices[Number(device.value)];
  const bars = data.bars.filter((bar) => bar.kind === chosen.kind);
  const totals = bars.map((bar) => billed(bar, c, s).reduce((sum, each) => sum + each, 0));
  const longest = Math.max(...totals);
  const widest = 1.02 * (chosen.room < 2 * longest ? Math.max(longest, chosen.room) : longest);
  const made = bars.map((bar) => drawn(bar, c, s, chosen, widest));
  document.getElementById("bars").replaceChildren(...made.map(({ block }) => block));
  document.querySelector("#numbers tbody").replaceChildren(...made.map(({ row }) => row));
  const [tokens, many] = [`${humanTokens(data.contexts[c])} tokens`, String(data.sequences[s])];
  for (const [slider, text] of [[context, tokens], [sequences, many]]) {
    document.getElementById(`${slider.id}-said`).textContent = text;
    slider.setAttribute("aria-valuetext", text);
  }
  const fitting = made.filter(({ kind }) => kind !== "bad").length;
  document.getElementById("said").textContent =
    `${fitting} of ${made.length} fit into the ${humanBytes(chosen.room)} of ${chosen.name}`;
}

function option(place, here) {
  const made = element("option", data.devices[place].name + (here ? " (this machine)" : ""));
  made.value = String(place);
  return made;
}

context.max = String(data.contexts.length - 1);
sequences.max = String(data.sequences.length - 1);
data.devices.forEach(({ here, kind }, place) => {
  if (data.bars.some((bar) => bar.kind === kind)) device.append(option(place, here));
});
for (const control of [context, sequences, device]) {
  control.value = String(data.chosen[control.id]);
  control.addEventListener("input", draw);
}
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
parts.forEach((part, i) => {
  const item = element("li", "");
  item.append(element("i", "", `p${i % COLOURS}`), part);
  document.getElementById("legend").append(item);
});
const header = element("tr", "");
header.append(...["", ...parts, "all", "", ""].map((name) => element("th", name)));
document.querySelector("#numbers thead").append(header);
draw();
