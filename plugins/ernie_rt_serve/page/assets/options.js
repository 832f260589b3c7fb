// The settings: a system prompt, which belongs to the conversation, and options, which belong to the browser.
import { byId } from "./dom.js";
import { t } from "./language.js";
import { openSettings } from "./panels.js";
import { keep, local } from "./storage.js";

const KEPT = "ernie-rt/options";
const form = byId("options");
const system = form.elements.system;
const inputs = [...form.elements].filter((element) => element.type === "number");
let defaults = {};

export function startOptions(onsystem) {
  const kept = read();
  for (const input of inputs) input.value = kept[input.name] ?? "";
  form.addEventListener("input", keepOptions);
  system.addEventListener("input", onsystem);
  byId("reset").onclick = () => {
    for (const input of inputs) input.value = "";
    keepOptions();
  };
  showDefaults();
}

function read() {
  try {
    return JSON.parse(local.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}

function keepOptions() {
  keep(KEPT, JSON.stringify(options()));
}

/** What the fields say, as a request has it; what is empty is left out. */
export function options() {
  const filled = inputs.filter((input) => input.value !== "");
  return Object.fromEntries(filled.map((input) => [input.name, input.valueAsNumber]));
}

/** Whether every field has a possible value; one that has not is shown and told. */
export function valid() {
  if (form.checkValidity()) return true;
  openSettings();
  return form.reportValidity();
}

export function getSystem() {
  return system.value;
}

export function setSystem(text) {
  system.value = text;
}

/** Show in the empty fields what the server does by default, as far as it has told (`known`), in the page's language. */
export function showDefaults(known = defaults) {
  defaults = known;
  for (const input of inputs) input.placeholder = known[input.name] ?? t("default");
}
