// Emphasis, code, links and their like within a line of Markdown, as nodes.
import { h } from "./dom.js";

const DEEPEST = 6;
const SPECIAL = /[\\`$[!<*_~h\n]/g;
const CODE = /`+/y;
const LINK = /!?\[((?:[^[\]\\]|\\.|\[[^[\]]*\])*)\]\(\s*<?([^\s<>()]*(?:\([^\s()]*\)[^\s<>()]*)*)>?(?:\s+"[^"]*")?\s*\)/y;
const ADDRESS = /<(https?:\/\/[^\s<>]+)>/y;
const BARE = /https?:\/\/[^\s<>"'`\u3000-\u303f\uff00-\uffef]+/y;
const BREAK = /<br\s*\/?>/iy;
const ESCAPED = /\\([!-/:-@[-`{-~])/y;
const EMPHASIS = { "*": "em", _: "em", "**": "strong", __: "strong", "~~": "del" };
const MATH = { $$: "$$", $: "$", "\\(": "\\)", "\\[": "\\]" };

/** The nodes of a text. Time is linear in its length: an opening mark that found no end is not tried again. */
export function inline(text, outer = { depth: 0, linked: false }) {
  const nodes = [];
  const state = { ...outer, hopeless: new Set() };
  let plain = 0;
  for (let at = 0; at < text.length; ) {
    SPECIAL.lastIndex = at;
    const special = SPECIAL.exec(text);
    if (!special) break;
    at = special.index;
    const found = element(text, at, state);
    if (!found) {
      at += 1;
      continue;
    }
    if (at > plain) nodes.push(text.slice(plain, at));
    nodes.push(found.node);
    at = plain = found.end;
  }
  if (plain < text.length) nodes.push(text.slice(plain));
  return nodes;
}

function element(text, at, state) {
  const character = text[at];
  if (character === "\n") return { node: h("br"), end: at + 1 };
  if (character === "`") return code(text, at, state);
  if (character === "$" || character === "\\") {
    const found = math(text, at, state);
    if (found || character === "$") return found;
    const escaped = matched(ESCAPED, text, at);
    return escaped && { node: escaped[1], end: at + 2 };
  }
  if (character === "[" || character === "!") return link(text, at, state);
  if (character === "<" || character === "h") return address(text, at, state);
  return emphasis(text, at, state);
}

function matched(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function code(text, at, { hopeless }) {
  const [marks] = matched(CODE, text, at);
  const end = hopeless.has(marks) ? -1 : ending(text, at + marks.length, marks);
  if (end < 0) {
    hopeless.add(marks);
    return { node: marks, end: at + marks.length };
  }
  const inside = text.slice(at + marks.length, end).replaceAll("\n", " ");
  const content = /^ .*\S.* $/.test(inside) ? inside.slice(1, -1) : inside;
  return { node: h("code", { translate: false }, content), end: end + marks.length };
}

/** Where a run of exactly these backticks is. */
function ending(text, from, marks) {
  for (let at = text.indexOf(marks, from); at >= 0; at = text.indexOf(marks, at)) {
    const [run] = matched(CODE, text, at);
    if (run.length === marks.length) return at;
    at += run.length;
  }
  return -1;
}

function math(text, at, { hopeless }) {
  const opening = MATH[text.slice(at, at + 2)] ? text.slice(at, at + 2) : text[at];
  const closing = MATH[opening];
  const from = at + opening.length;
  if (!closing || hopeless.has(opening) || (opening === "$" && /[\s\d]/.test(text[from] ?? " "))) return null;
  const end = text.indexOf(closing, from);
  if (end < 0) hopeless.add(opening);
  if (end <= from || (opening === "$" && !/^[^\n]*[^\s]$/.test(text.slice(from, end)))) return null;
  const after = end + closing.length;
  return { node: h("span", { className: "math", translate: false }, text.slice(at, after)), end: after };
}

function link(text, at, state) {
  const found = state.linked ? null : matched(LINK, text, at);
  if (!found) return null;
  const [whole, words, target] = found;
  const end = at + whole.length;
  const href = safe(target);
  if (!href) return { node: whole, end };
  return { node: anchor(href, words ? inline(words, { ...state, linked: true }) : target), end };
}

function address(text, at, { linked }) {
  if (matched(BREAK, text, at)) return { node: h("br"), end: text.indexOf(">", at) + 1 };
  if (linked) return null;
  const enclosed = matched(ADDRESS, text, at);
  const bare = enclosed ? enclosed[1] : matched(BARE, text, at)?.[0].replace(/[.,:;!?*_~)\]}]+$/, "");
  const href = bare && safe(bare);
  return href ? { node: anchor(href, bare), end: at + (enclosed?.[0] ?? bare).length } : null;
}

/** The address, if a click on it can do no more than open a page or a letter. */
function safe(target) {
  const url = URL.parse(target);
  return url && ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
}

function anchor(href, children) {
  return h("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, children);
}

function emphasis(text, at, state) {
  const { depth, hopeless } = state;
  const mark = EMPHASIS[text.slice(at, at + 2)] ? text.slice(at, at + 2) : text[at];
  const from = at + mark.length;
  const within = mark[0] === "_" && /[\p{L}\p{N}]/u.test(text[at - 1] ?? " ");
  if (!EMPHASIS[mark] || depth >= DEEPEST || within || /\s/.test(text[from] ?? " ")) return null;
  const end = hopeless.has(mark) ? -1 : closer(text, from, mark);
  if (end < 0) {
    hopeless.add(mark);
    return { node: mark, end: from };
  }
  return { node: h(EMPHASIS[mark], {}, inline(text.slice(from, end), { ...state, depth: depth + 1 })), end: end + mark.length };
}

/** Where emphasis that began before `from` ends, or -1. */
function closer(text, from, mark) {
  for (let at = text.indexOf(mark, from + 1); at >= 0; at = text.indexOf(mark, at)) {
    let end = at;
    while (text[end] === mark[0]) end += 1;
    const after = text[end] ?? " ";
    const closes = !/\s/.test(text[at - 1]) && (mark[0] !== "_" || !/[\p{L}\p{N}]/u.test(after));
    if (closes && (mark.length === 2 || (end - at) % 2)) return end - mark.length;
    at = end;
  }
  return -1;
}
