// Elements. Text enters them as text, never as HTML.
import { label, say, t } from "./language.js";

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with properties (functions listen to the event `onclick`, …) and children: nodes, texts, arrays of them. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) element[name] = value;
  // One by one: of an argument for each, a long text has more than a call can take.
  for (const child of children.flat()) element.append(child);
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** An element that shows a word of the tables. */
export function text(tag, key, values, properties) {
  const element = h(tag, properties);
  say(element, key, values);
  return element;
}

export function icon(name) {
  return svg("svg", { "aria-hidden": "true" }, svg("use", { href: `#icon-${name}` }));
}

export function setIcon(button, name) {
  button.querySelector("use").setAttribute("href", `#icon-${name}`);
}

/** A button that is a picture; `key` names it. */
export function iconButton(name, key, onclick) {
  const button = h("button", { className: "quiet", type: "button", onclick }, icon(name));
  label(button, key);
  return button;
}

/** A button that copies what `source()` gives. */
export function copyButton(source) {
  const button = iconButton("copy", "copy", async () => {
    await copy(source());
    setIcon(button, "done");
    notify("copied");
    setTimeout(() => setIcon(button, "copy"), 1500);
  });
  return button;
}

async function copy(content) {
  // Browsers hide the clipboard from pages that come by plain HTTP from another machine; the old way still works there.
  if (navigator.clipboard) return navigator.clipboard.writeText(content);
  const field = h("textarea", { value: content, className: "unseen" });
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

let fading = 0;

/** Tell something in passing. */
export function notify(key, values) {
  const notice = byId("notice");
  say(notice, key, values);
  notice.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => notice.classList.remove("shown"), 3500);
}

/** Tell those who listen instead of looking: that an answer comes, and the whole of it, once; what else changes. */
export function announce(key, values) {
  byId("announcer").textContent = t(key, values);
}

/** Ask whether to go on; resolves to true or false. */
export function ask(key, values) {
  const dialog = byId("question");
  say(dialog.querySelector("p"), key, values);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
