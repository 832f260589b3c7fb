// Every word of the page: a table for each language, and elements that remember which of its words they show.
import en from "./en.js";
import zh from "./zh.js";
import { keep, local } from "./storage.js";

const TABLES = { en, zh };
const KEPT = "ernie-rt/language";

export let language = TABLES[local.getItem(KEPT)] ? local.getItem(KEPT) : preferred();

function preferred() {
  const known = navigator.languages.map((name) => name.slice(0, 2)).find((name) => TABLES[name]);
  return known ?? "en";
}

export function t(key, values = {}) {
  return TABLES[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Put a text into an element, which follows when the language changes. */
export function say(element, key, values = {}) {
  element.dataset.text = key;
  element.dataset.values = JSON.stringify(values);
  element.textContent = t(key, values);
}

/** Name an element for those who hover over it or hear it. */
export function label(element, key, values = {}) {
  element.dataset.label = key;
  element.dataset.values = JSON.stringify(values);
  element.setAttribute("aria-label", t(key, values));
  if (element.matches("button")) element.title = t(key, values);
}

/** Say everything anew, in `name` if given, and remember that. */
export function speak(name = language) {
  if (name !== language) keep(KEPT, name);
  language = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : name;
  const values = (element) => JSON.parse(element.dataset.values ?? "{}");
  for (const element of document.querySelectorAll("[data-text]")) say(element, element.dataset.text, values(element));
  for (const element of document.querySelectorAll("[data-label]")) label(element, element.dataset.label, values(element));
  for (const element of document.querySelectorAll("[data-placeholder]"))
    element.placeholder = t(element.dataset.placeholder);
}

export function count(number) {
  return number.toLocaleString(language);
}

/** A large number in few letters. */
export function compact(number) {
  return number.toLocaleString(language, { notation: "compact" });
}

/** With as many decimals as make three digits, at most two. */
export function measure(number) {
  const decimals = number === 0 ? 0 : number < 10 ? 2 : number < 100 ? 1 : 0;
  return number.toLocaleString(language, { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}
