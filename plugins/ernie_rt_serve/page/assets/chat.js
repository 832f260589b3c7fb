// The conversation: what is written, sent, answered, and written anew.
import { AnswerView, isSend, userMessage } from "./answer.js";
import { announce, byId } from "./dom.js";
import { contentOf, fit } from "./files.js";
import { getSystem, options, setSystem, valid } from "./options.js";
import { emptyAnswer, Run } from "./run.js";
import { showList } from "./sidebar.js";
import { session } from "./storage.js";
import { all, fresh, save } from "./store.js";
import { Tray } from "./tray.js";

const OPEN = "ernie-rt/open";
const NEAR = 24; // pixels from the end within which the view follows what comes
const field = byId("message");
const scroller = byId("scroller");
const thread = byId("thread");

export class Chat {
  current = fresh("");
  /** By conversation, the answer that is coming. */
  #runs = new Map();
  #model;
  #onopen;
  #follows = true;
  #tray = new Tray();

  /** `model()` promises the name that requests give; `onopen` hears that another conversation is shown. */
  constructor(model, onopen) {
    this.#model = model;
    this.#onopen = onopen;
    byId("composer").onsubmit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    byId("stop").onclick = () => this.stop();
    byId("to-end").onclick = () => toEnd("smooth");
    scroller.onscroll = () => {
      this.#follows = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
      byId("to-end").hidden = this.#follows;
    };
    field.oninput = grow;
    field.onkeydown = (event) => {
      if (!isSend(event)) return;
      event.preventDefault();
      this.#submit();
    };
    window.addEventListener("pagehide", () => {
      for (const { conversation } of this.#runs.values()) save(conversation);
    });
  }

  /** Take up what this tab showed before, or begin a conversation. */
  start() {
    this.open(session.getItem(OPEN));
  }

  open(id) {
    const known = this.#runs.get(id)?.conversation ?? all().find((conversation) => conversation.id === id);
    this.#enter(known ?? fresh(getSystem()));
  }

  begin() {
    this.#enter(fresh(getSystem()));
    field.focus();
  }

  #enter(conversation) {
    this.#runs.get(this.current.id)?.run.unwatch();
    this.current = conversation;
    session.setItem(OPEN, conversation.id);
    setSystem(conversation.system);
    this.#show();
    showList();
    this.#onopen();
  }

  /** The system prompt was changed. */
  useSystem() {
    this.current.system = getSystem();
    if (this.current.messages.length) save(this.current);
  }

  /** Whether there was an answer to stop. */
  stop() {
    const going = this.#runs.get(this.current.id);
    going?.run.stop();
    return Boolean(going);
  }

  /** Let go of the answer that a conversation waits for. */
  forget(id) {
    this.#runs.get(id)?.run.stop();
    this.#runs.delete(id);
  }

  #show() {
    const { messages } = this.current;
    const lastUser = messages.findLastIndex((message) => message.role === "user");
    thread.replaceChildren(...messages.map((message, index) => {
      if (message.role === "user") return userMessage(message, index === lastUser ? (text) => this.#resend(text) : null);
      return this.#answer(message, index === messages.length - 1);
    }));
    byId("chat").classList.toggle("empty", messages.length === 0);
    this.#showState();
    toEnd("instant");
  }

  #answer(message, isLast) {
    const view = new AnswerView(message, isLast ? () => this.#again() : null);
    const going = isLast ? this.#runs.get(this.current.id) : undefined;
    if (going) this.#watch(going, view);
    else view.show();
    return view.element;
  }

  #watch(going, view) {
    going.view = view;
    view.follow(going.run, () => {
      if (this.#follows) toEnd("instant");
    });
  }

  #showState() {
    const running = this.#runs.has(this.current.id);
    byId("send").hidden = running;
    byId("stop").hidden = !running;
  }

  #submit() {
    const { files, reading } = this.#tray;
    const message = { role: "user", content: field.value.trim(), files };
    if (!(message.content || files.length) || reading || this.#runs.has(this.current.id) || !valid()) return;
    if (!fit(prompt({ ...this.current, messages: [...this.current.messages, message] }))) return;
    this.#tray.take();
    field.value = "";
    grow();
    this.#say(message);
  }

  /** Send the last message anew, with another text. */
  #resend(text) {
    if (!valid()) return;
    this.forget(this.current.id);
    const { messages } = this.current;
    const [message] = messages.splice(messages.findLastIndex((message) => message.role === "user"));
    this.#say({ ...message, content: text });
  }

  #say(message) {
    this.current.title ||= (message.content || message.files[0].name).split("\n")[0].slice(0, 80);
    this.current.messages.push(message);
    this.#ask();
  }

  /** Answer the last message anew. */
  #again() {
    if (!valid()) return;
    this.current.messages.pop();
    this.#ask();
  }

  async #ask() {
    const conversation = this.current;
    const message = emptyAnswer();
    conversation.messages.push(message);
    conversation.updated = Date.now();
    const going = { conversation, run: new Run(message), view: null };
    this.#runs.set(conversation.id, going);
    save(conversation);
    this.#show();
    showList();
    announce("answer_running");
    await going.run.go(this.#request(conversation));
    if (this.#runs.get(conversation.id) !== going) return; // removed, or sent anew
    this.#runs.delete(conversation.id);
    save(conversation);
    if (conversation === this.current) this.#finish(going.view, message);
  }

  async #request(conversation) {
    const body = { messages: prompt(conversation), ...options() };
    return { model: await this.#model(), ...body };
  }

  #finish(view, message) {
    view.show();
    this.#showState();
    if (this.#follows) toEnd("instant");
    if (message.finish === "stopped") announce("answer_stopped");
    else if (!message.refusal) announce("answer_done", { text: view.words });
  }
}

/** The messages as a request has them: of answers what the next one is to know, without thoughts. */
function prompt({ system, messages }) {
  const said = messages.filter((message) => message.role === "user" || message.content);
  const turns = said.map((message) => {
    return { role: message.role, content: message.role === "user" ? contentOf(message) : message.content };
  });
  return system.trim() ? [{ role: "system", content: system }, ...turns] : turns;
}

function toEnd(behavior) {
  scroller.scrollTo({ top: scroller.scrollHeight, behavior });
}

/** As high as what is written, within limits that the stylesheet sets. */
function grow() {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
