// Puts the page together.
import { get } from "./api.js";
import { Chat } from "./chat.js";
import { byId } from "./dom.js";
import { useModel } from "./files.js";
import { language, speak } from "./language.js";
import { showDefaults, startOptions } from "./options.js";
import { closePanels, closeSidebar, showChat, startPanels } from "./panels.js";
import { ServerView } from "./server.js";
import { showList, startSidebar } from "./sidebar.js";
import { isKept } from "./store.js";

speak();
startPanels(() => server.show());
let model = askModel();
const server = new ServerView();
const chat = new Chat(async () => (await model) ?? (model = askModel()), () => {
  showChat();
  closeSidebar();
});
startOptions(() => chat.useSystem());
startSidebar(chat);
chat.start();

window.addEventListener("key", () => (model = askModel()));
window.addEventListener("storage", ({ key }) => {
  if (isKept(key)) showList();
});
byId("language").onclick = () => {
  speak(language === "en" ? "zh" : "en");
  showDefaults();
  server.show();
};
byId("new-chat").querySelector("kbd").textContent = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘K" : "Ctrl K";

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented && !event.isComposing && !chat.stop()) closePanels();
  if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey) return;
  event.preventDefault();
  chat.begin();
});

/** Learn the model's name and its defaults; without them requests leave the name to the server. */
async function askModel() {
  try {
    const [first] = (await get("v1/models")).data;
    byId("model").textContent = first.id;
    showDefaults(first.defaults ?? {});
    byId("attach").hidden = !useModel(first);
    return first.id;
  } catch {
    // Whoever sends a message is told what is wrong.
  }
}
