// Blocks of Markdown as elements. HTML in the text stays text, and so does mathematics.
import { copyButton, h } from "./dom.js";
import { inline } from "./inline.js";

const DEEPEST = 12; // quotes and lists within each other; what lies deeper is a paragraph
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(?=\S)/;
const TABLE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const MATH = /^\s*(\$\$|\\\[)/;
const MATH_END = { "$$": "$$", "\\[": "\\]" };
const shown = new WeakMap();

/** Make `container` show `text`; blocks that it shows already stay as they are, with whatever is selected in them. */
export function show(container, text) {
  const next = blocks(text.replaceAll("\r\n", "\n").split("\n"), 0);
  const sources = shown.get(container) ?? [];
  let same = 0;
  while (same < next.length && same < sources.length && next[same].source === sources[same]) same += 1;
  while (container.childNodes.length > same) container.lastChild.remove();
  for (const block of next.slice(same)) container.append(block.build());
  shown.set(container, next.map((block) => block.source));
}

/** The blocks of some lines: what each was written as, and a function that makes its element. */
function blocks(lines, depth) {
  const found = [];
  for (let start = 0; start < lines.length; ) {
    if (!lines[start].trim()) {
      start += 1;
      continue;
    }
    const [end, build] = block(lines, start, depth);
    found.push({ source: lines.slice(start, end).join("\n"), build });
    start = end;
  }
  return found;
}

/** The block that begins with line `at`: the line after it, and a function that makes its element. */
function block(lines, at, depth) {
  const line = lines[at];
  let match;
  if ((match = FENCE.exec(line))) return fenced(lines, at, match[1], match[2]);
  if ((match = HEADING.exec(line))) {
    const [, marks, words] = match;
    return [at + 1, () => h(`h${Math.min(marks.length + 2, 6)}`, {}, inline(words))];
  }
  if (RULE.test(line)) return [at + 1, () => h("hr")];
  if ((match = MATH.exec(line))) return formula(lines, at, MATH_END[match[1]]);
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !begins(lines, end, depth)) end += 1;
  return [end, () => h("p", {}, inline(lines.slice(at, end).map((text) => text.trim()).join("\n")))];
}

/** Whether line `at` ends a paragraph above it. */
function begins(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || MATH.test(line)) return true;
  return (depth < DEEPEST && (QUOTE.test(line) || ITEM.test(line))) || isTable(lines, at);
}

function fenced(lines, at, fence, language) {
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}\\s*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const indent = new RegExp(`^ {0,${indentation(lines[at])}}`);
  const code = lines.slice(at + 1, end).map((line) => line.replace(indent, "")).join("\n");
  return [Math.min(end + 1, lines.length), () => codeBlock(code, language)];
}

export function codeBlock(code, language) {
  const bar = h("header", {}, h("span", { translate: false }, language), copyButton(() => code));
  return h("div", { className: "code" }, bar, h("pre", { tabIndex: 0 }, h("code", { translate: false }, code)));
}

function formula(lines, at, closing) {
  const opening = lines[at].trim().slice(0, 2);
  const ends = (index) => lines[index].slice(index === at ? lines[at].indexOf(opening) + 2 : 0).includes(closing);
  let end = at;
  while (end < lines.length && !ends(end)) end += 1;
  end = Math.min(end + 1, lines.length);
  return [end, () => h("p", { className: "math", translate: false }, lines.slice(at, end).join("\n"))];
}

function quote(lines, at, depth) {
  let end = at + 1;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inside = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return [end, () => h("blockquote", {}, built(inside, depth))];
}

function built(lines, depth) {
  return blocks(lines, depth + 1).map((block) => block.build());
}

function list(lines, at, depth) {
  const [, space, marker] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(marker);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const match = ITEM.exec(lines[end]);
    const indent = indentation(lines[end]);
    if (match && indent < space.length + 2 && indent >= space.length) {
      if (/\d/.test(match[2]) !== ordered || RULE.test(lines[end])) break;
      items.push([lines[end].slice(match[0].length)]);
    } else if (!lines[end].trim()) {
      let next = end + 1;
      while (next < lines.length && !lines[next].trim()) next += 1;
      if (next === lines.length || (indentation(lines[next]) < space.length + 2 && !ITEM.test(lines[next]))) break;
      items.at(-1).push("");
    } else if (indent >= space.length + 2) {
      items.at(-1).push(lines[end].slice(Math.min(indent, space.length + marker.length + 1)));
    } else if (match || !items.at(-1).at(-1).trim() || begins(lines, end, depth)) {
      break;
    } else {
      items.at(-1).push(lines[end]);
    }
    end += 1;
  }
  const build = () => {
    const element = h(ordered ? "ol" : "ul", {}, items.map((item) => h("li", {}, built(item, depth))));
    if (ordered) element.start = Number.parseInt(marker, 10);
    return element;
  };
  return [end, build];
}

function indentation(line) {
  return line.length - line.trimStart().length;
}

function isTable(lines, at) {
  return lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && TABLE.test(lines[at + 1]) &&
    cells(lines[at]).length === cells(lines[at + 1]).length;
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].trim() && lines[end].includes("|")) end += 1;
  const sides = cells(lines[at + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left"));
  const row = (tag, line) =>
    h("tr", {}, sides.map((side, index) => h(tag, { className: side }, inline(cells(line)[index] ?? ""))));
  const build = () => {
    const head = h("thead", {}, row("th", lines[at]));
    const body = h("tbody", {}, lines.slice(at + 2, end).map((line) => row("td", line)));
    return h("div", { className: "table", tabIndex: 0 }, h("table", {}, head, body));
  };
  return [end, build];
}
