// The files that the next message brings: chosen, dropped or pasted.
import { announce, byId, h, iconButton } from "./dom.js";
import { forget, opened, thumbnail } from "./files.js";
import { label } from "./language.js";

const list = byId("tray");
const field = byId("message");

export class Tray {
  files = [];
  /** How many files are being read. */
  reading = 0;

  constructor() {
    const input = byId("file");
    byId("attach").onclick = () => input.click();
    input.onchange = () => {
      this.#add(input.files);
      input.value = "";
    };
    field.addEventListener("paste", (event) => {
      const { files, types } = event.clipboardData;
      // Of text that they copy, spreadsheets and word processors bring a picture as well.
      if (!files.length || (types.includes("text/html") && types.includes("text/plain"))) return;
      event.preventDefault();
      this.#add(files);
    });
    // Wherever a file is dropped: a browser would show it in place of the page.
    window.ondragover = (event) => this.#drag(event, true);
    window.ondragleave = (event) => {
      if (!event.relatedTarget) this.#drag(event, false);
    };
    window.ondrop = (event) => {
      if (this.#drag(event, false)) this.#add(event.dataTransfer.files);
    };
  }

  /** The files, which wait no longer. */
  take() {
    const files = this.files;
    this.files = [];
    this.#show();
    return files;
  }

  /** Whether files are dragged, rather than text. */
  #drag(event, over) {
    const files = event.dataTransfer.types.includes("Files");
    if (files) event.preventDefault();
    byId("composer").classList.toggle("dropping", files && over);
    return files;
  }

  async #add(files) {
    for (const file of [...files]) {
      this.reading += 1;
      const added = await opened(file).finally(() => (this.reading -= 1));
      if (!added) continue;
      this.files.push(added);
      this.#show();
      announce("attached", { name: added.name });
    }
    field.focus();
  }

  #remove(file) {
    const index = this.files.indexOf(file);
    this.files.splice(index, 1);
    forget([file]);
    this.#show();
    const next = list.children[Math.min(index, this.files.length - 1)];
    (next?.querySelector("button") ?? field).focus();
  }

  #show() {
    list.hidden = !this.files.length;
    list.replaceChildren(...this.files.map((file) => {
      const remove = iconButton("close", "remove_file", () => this.#remove(file));
      label(remove, "remove_file", { name: file.name });
      return h("li", {}, thumbnail(file), remove);
    }));
  }
}
