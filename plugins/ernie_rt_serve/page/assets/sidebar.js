// The list of conversations, and what can be done with all of them.
import { ask, byId, h, iconButton, notify, text } from "./dom.js";
import { all, exported, imported, remove } from "./store.js";

const list = byId("conversations");
let chat;

/** `chat` has `current`, `open(id)`, `begin()` and `forget(id)`. */
export function startSidebar(controls) {
  chat = controls;
  byId("new-chat").onclick = () => chat.begin();
  byId("export").onclick = save;
  byId("import").onclick = () => byId("import-file").click();
  byId("import-file").onchange = load;
  byId("remove-all").onclick = async () => {
    if (!(await ask("remove_all_question"))) return;
    for (const conversation of all()) forget(conversation.id);
    showList();
    chat.begin();
  };
}

export function showList() {
  const conversations = all();
  list.replaceChildren(...conversations.map(row));
  byId("no-conversations").hidden = conversations.length > 0;
  byId("export").disabled = byId("remove-all").disabled = conversations.length === 0;
}

function row(conversation) {
  const name = { type: "button", onclick: () => chat.open(conversation.id) };
  const open = conversation.title ? h("button", name, conversation.title) : text("button", "untitled", {}, name);
  open.dir = "auto";
  if (conversation.id === chat.current.id) open.ariaCurrent = "page";
  const drop = iconButton("remove", "remove", async () => {
    if (!(await ask("remove_question", { title: open.textContent }))) return;
    forget(conversation.id);
    showList();
    if (conversation.id === chat.current.id) chat.begin();
  });
  return h("li", {}, open, drop);
}

function forget(id) {
  chat.forget(id);
  remove(id);
}

function save() {
  const file = new Blob([exported()], { type: "application/json" });
  const link = h("a", { href: URL.createObjectURL(file), download: "ernie-rt-conversations.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function load({ target }) {
  const number = imported(await target.files[0].text());
  target.value = "";
  if (number === null) notify("import_failed");
  else notify("imported", { count: number });
  showList();
}
