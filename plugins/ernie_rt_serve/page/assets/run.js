// One answer while it comes: it fills a message, and tells whoever looks at it.
import { Refusal, stream } from "./api.js";

const SHORTEST = 0.1; // seconds below which a speed means nothing

export function emptyAnswer() {
  return { role: "assistant", content: "", reasoning: "", calls: [], finish: "", figures: {}, ignored: "", refusal: null };
}

export class Run {
  #abort = new AbortController();
  #message;
  #began = performance.now();
  #first = 0;
  #pieces = 0;
  #onchange = null;

  constructor(message) {
    this.#message = message;
  }

  /** Ask as a promised body says, and fill the message until the answer ends, is stopped or fails. */
  async go(body) {
    const request = { ...(await body), stream: true, stream_options: { include_usage: true } };
    try {
      const ignored = (names) => (this.#message.ignored = names);
      for await (const event of stream("v1/chat/completions", request, this.#abort.signal, ignored)) this.#take(event);
    } catch (error) {
      if (error.name === "AbortError") this.#message.finish = "stopped";
      else this.#fail(error instanceof Refusal ? error : new Refusal("failed", error.message));
    }
  }

  /** Call `onchange` whenever the message has changed. */
  watch(onchange) {
    this.#onchange = onchange;
  }

  unwatch() {
    this.#onchange = null;
  }

  stop() {
    this.#abort.abort();
  }

  /** Whether the model thinks, as far as it can be told. */
  get thinking() {
    return this.#message.reasoning !== "" && this.#message.content === "" && !this.#message.calls.length;
  }

  #take(event) {
    const choice = event.choices?.[0];
    if (choice?.delta) this.#add(choice.delta);
    if (choice?.finish_reason) this.#message.finish = choice.finish_reason;
    if (event.usage) this.#count(event.usage);
    this.#onchange?.();
  }

  #add(delta) {
    const message = this.#message;
    message.reasoning += delta.reasoning_content ?? "";
    message.content += delta.content ?? "";
    for (const part of delta.tool_calls ?? []) {
      const call = (message.calls[part.index ?? 0] ??= { name: "", arguments: "" });
      call.name += part.function?.name ?? "";
      call.arguments += part.function?.arguments ?? "";
    }
    if (!(delta.reasoning_content || delta.content || delta.tool_calls)) return;
    this.#pieces += 1;
    this.#first ||= performance.now();
    this.#measure(this.#pieces);
  }

  #fail({ kind, detail, retryAfter }) {
    this.#message.finish = "failed";
    this.#message.refusal = { kind, detail, retryAfter };
  }

  /** Until the server tells how many tokens there were, a piece of the stream counts as one. */
  #measure(tokens) {
    const figures = this.#message.figures;
    figures.first = (this.#first - this.#began) / 1000;
    figures.tokens = tokens;
    const seconds = (performance.now() - this.#first) / 1000;
    if (tokens > 1 && seconds > SHORTEST) figures.speed = (tokens - 1) / seconds;
  }

  #count(usage) {
    if (this.#first) this.#measure(usage.completion_tokens);
    Object.assign(this.#message.figures, {
      tokens: usage.completion_tokens,
      prompt: usage.prompt_tokens,
      cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
    });
  }
}
