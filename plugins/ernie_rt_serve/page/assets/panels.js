// The frame around the conversation: two views, a panel on either side, light and dark.
import { byId, setIcon } from "./dom.js";
import { label } from "./language.js";
import { keep, local } from "./storage.js";

const KEPT = "ernie-rt/theme";
const THEMES = ["system", "light", "dark"];
const TABS = ["chat", "server"];
const sidebar = byId("sidebar");
const settings = byId("settings");

/** `onview(name)` hears which view is shown. */
export function startPanels(onview) {
  for (const name of TABS) byId(`${name}-tab`).onclick = () => view(name, onview);
  byId("bar").querySelector("[role=tablist]").onkeydown = ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    const next = byId("chat").hidden ? "chat" : "server";
    view(next, onview);
    byId(`${next}-tab`).focus();
  };
  byId("open-sidebar").onclick = () => sidebar.classList.add("open");
  byId("open-settings").onclick = () => (settings.hidden ? openSettings() : closeSettings());
  byId("close-sidebar").onclick = closePanels;
  byId("close-settings").onclick = closeSettings;
  byId("veil").onclick = closePanels;
  byId("theme").onclick = () => useTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
  useTheme(theme());
}

function view(name, onview) {
  for (const tab of TABS) {
    byId(tab).hidden = tab !== name;
    byId(`${tab}-tab`).ariaSelected = String(tab === name);
    byId(`${tab}-tab`).tabIndex = tab === name ? 0 : -1;
  }
  onview(name);
}

export function showChat() {
  byId("chat-tab").click();
}

export function openSettings() {
  settings.hidden = false;
  byId("open-settings").ariaExpanded = "true";
  settings.querySelector("textarea").focus();
}

function closeSettings() {
  if (settings.contains(document.activeElement)) byId("open-settings").focus();
  settings.hidden = true;
  byId("open-settings").ariaExpanded = "false";
}

export function closeSidebar() {
  sidebar.classList.remove("open");
}

export function closePanels() {
  closeSidebar();
  closeSettings();
}

function theme() {
  const kept = local.getItem(KEPT);
  return THEMES.includes(kept) ? kept : "system";
}

function useTheme(name) {
  keep(KEPT, name);
  document.documentElement.dataset.theme = name;
  setIcon(byId("theme"), `theme-${name}`);
  label(byId("theme"), `theme_${name}`);
}
