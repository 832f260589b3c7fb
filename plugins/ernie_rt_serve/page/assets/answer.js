// How messages look: a user's, and an answer with its thoughts, tool calls, figures and what went wrong.
import { hasKey, useKey } from "./api.js";
import { copyButton, h, icon, iconButton, text } from "./dom.js";
import { thumbnail } from "./files.js";
import { count, measure, say } from "./language.js";
import { codeBlock, show } from "./markdown.js";

/** A user's message with its files; with `resend`, it can be edited, and `resend` is called with the new text. */
export function userMessage(message, resend) {
  const article = h("article", { className: "user" });
  const words = () => {
    const actions = h("div", { className: "actions" }, copyButton(() => message.content));
    if (resend) actions.prepend(iconButton("edit", "edit", edit));
    article.replaceChildren(actions);
    if (message.content) article.prepend(h("div", { className: "bubble" }, message.content));
    if (message.files.length) article.prepend(h("div", { className: "files" }, message.files.map(thumbnail)));
  };
  const edit = () => {
    const field = h("textarea", { value: message.content });
    const form = h("form", { className: "edit" }, field, h("menu", {},
      text("button", "cancel", {}, { type: "button", onclick: words }),
      text("button", "send", {}, { type: "submit", className: "primary" })));
    form.onsubmit = (event) => {
      event.preventDefault();
      if (field.value.trim() || message.files.length) resend(field.value.trim());
    };
    field.onkeydown = (event) => {
      if (isSend(event)) form.requestSubmit();
      if (event.key === "Escape") words();
      if (isSend(event) || event.key === "Escape") event.preventDefault();
    };
    article.replaceChildren(form);
    field.focus();
  };
  words();
  return article;
}

/** Enter alone, and not the one that ends a word in an input method. */
export function isSend(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

export class AnswerView {
  element = h("article", { className: "answer" });
  #message;
  #again;
  #thoughts = h("div", { className: "thoughts" });
  #thinking = h("details", { className: "thinking", hidden: true }, text("summary", "thought"), this.#thoughts);
  #content = h("div", { className: "markdown" });
  #calls = h("div", { className: "calls" });
  #waiting = h("div", { className: "waiting" }, h("i"), h("i"), h("i"));
  #trouble = h("div", { className: "trouble" });
  #figures = h("p", { className: "figures dim" });
  #actions = h("div", { className: "actions" });
  #frame = 0;

  /** `again` asks for another answer in place of this one; only the last answer has it. */
  constructor(message, again) {
    this.#message = message;
    this.#again = again;
    this.element.append(this.#thinking, this.#content, this.#calls, this.#waiting, this.#trouble,
      h("footer", {}, this.#actions, this.#figures));
  }

  /** What the answer says, as it is read. */
  get words() {
    return this.#content.innerText;
  }

  /** Follow a run, a frame of the screen at a time; `onframe` is called after each. */
  follow(run, onframe) {
    run.watch(() => {
      this.#frame ||= requestAnimationFrame(() => {
        this.#frame = 0;
        this.show(run);
        onframe();
      });
    });
    this.show(run);
  }

  /** Show the message as it is; with a run, one that is still coming. */
  show(run) {
    const message = this.#message;
    this.element.ariaBusy = String(Boolean(run));
    this.#waiting.hidden = !run || Boolean(message.content || message.reasoning || message.calls.length);
    this.#think(Boolean(run?.thinking));
    show(this.#content, message.content);
    this.#calls.replaceChildren(...message.calls.filter(Boolean).map(toolCall));
    this.#figures.replaceChildren(...figures(message.figures));
    if (run) return;
    cancelAnimationFrame(this.#frame);
    this.#end();
  }

  /** Open while the model thinks, and folded away afterwards unless somebody has opened it. */
  #think(thinking) {
    const element = this.#thinking;
    element.hidden = this.#message.reasoning === "";
    if (thinking !== element.classList.contains("now")) {
      element.classList.toggle("now", thinking);
      element.open = thinking;
      say(element.firstChild, thinking ? "thinking" : "thought");
    }
    if (!element.hidden) show(this.#thoughts, this.#message.reasoning);
  }

  #end() {
    const message = this.#message;
    const buttons = message.content ? [copyButton(() => message.content)] : [];
    if (this.#again) buttons.push(iconButton("again", "again", this.#again));
    this.#actions.replaceChildren(...buttons);
    this.#trouble.replaceChildren();
    if (message.finish === "length") this.#remark("reached_limit");
    if (message.finish === "stopped") this.#remark("stopped");
    if (message.finish === "stop" && !message.content && !message.calls.length) this.#remark("no_tokens");
    if (message.ignored) this.#remark("ignored", { names: message.ignored });
    if (message.refusal) this.#complain(message.refusal);
  }

  #remark(key, values) {
    this.#trouble.append(text("p", key, values, { className: "remark dim" }));
  }

  #complain(refusal) {
    const box = h("div", { className: "error", role: "alert" }, text("p", errorKey(refusal)));
    if (refusal.detail) box.append(h("p", { className: "detail" }, refusal.detail));
    if (this.#again && refusal.kind === "key") box.append(keyForm(this.#again));
    else if (this.#again && ["unreachable", "stopping", "busy", "failed", "broken"].includes(refusal.kind))
      box.append(tryAgain(refusal.retryAfter, this.#again));
    this.#trouble.append(box);
  }
}

/** The name of the text that tells what went wrong and what to do. */
export function errorKey({ kind }) {
  return kind === "key" && hasKey() ? "key_wrong" : `error_${kind}`;
}

function toolCall(call) {
  let content = call.arguments;
  try {
    content = JSON.stringify(JSON.parse(content), null, 2);
  } catch {
    // Not whole yet, or no JSON: shown as it is.
  }
  const name = h("p", { className: "call" }, icon("tool"), h("strong", { translate: false }, call.name));
  return h("section", {}, name, codeBlock(content, "json"));
}

function figures({ speed, first, tokens, prompt, cached }) {
  const parts = [];
  if (speed !== undefined) parts.push(text("span", "figure_speed", { speed: measure(speed) }));
  if (first !== undefined) parts.push(text("span", "figure_first", { seconds: measure(first) }));
  if (tokens !== undefined) parts.push(text("span", "figure_tokens", { count: count(tokens) }));
  if (cached) parts.push(text("span", "figure_cached", { count: count(cached), prompt: count(prompt) }));
  else if (prompt !== undefined) parts.push(text("span", "figure_prompt", { prompt: count(prompt) }));
  return parts;
}

/** A button that can be pressed once the server's time of waiting is over. */
function tryAgain(seconds, again) {
  const button = text("button", "try_again", {}, { type: "button", className: "primary", onclick: again });
  const until = Date.now() + 1000 * seconds;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    button.disabled = left > 0;
    if (left > 0) say(button, "try_again_in", { seconds: left });
    else say(button, "try_again");
    if (left > 0) setTimeout(tick, 250);
  };
  tick();
  return button;
}

/** Asks for the key; `entered` is called once there is one. */
export function keyForm(entered) {
  const field = h("input", { type: "password", required: true, pattern: "[!-~]+", autocomplete: "off", name: "key" });
  const form = h("form", { className: "key" },
    h("label", {}, text("span", "key"), field),
    text("button", "use_key", {}, { type: "submit", className: "primary" }),
    text("p", "key_more", {}, { className: "dim" }));
  form.onsubmit = (event) => {
    event.preventDefault();
    useKey(field.value);
    entered();
  };
  return form;
}
