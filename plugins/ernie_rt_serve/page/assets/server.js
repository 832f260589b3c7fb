// The view of the server's state: what it says of itself every few seconds, and the last minutes as charts.
import { get } from "./api.js";
import { errorKey, keyForm } from "./answer.js";
import { Chart, SPAN } from "./chart.js";
import { byId, h, text } from "./dom.js";
import { compact, count, measure, t } from "./language.js";

const EVERY = 3000; // milliseconds between two questions
const view = byId("server");

const percent = (share) => `${measure(100 * share)} %`;
const duration = (seconds) =>
  seconds < 1 ? t("milliseconds", { number: measure(1000 * seconds) }) : t("seconds", { number: measure(seconds) });

export class ServerView {
  #samples = [];
  #last = null;
  #name = h("h1", { translate: false });
  #facts = h("p", { className: "facts dim" });
  #tiles = h("dl", { className: "tiles" });
  #trouble = h("div", { className: "trouble" });
  #charts = [
    new Chart("chart_throughput", { generation: "generation_tokens", prompt: "prompt_tokens" }, measure, compact),
    new Chart("chart_queue", { running: "running", waiting: "waiting" }, count, compact),
    new Chart("chart_cache", { cache: "cache_usage" }, percent, percent, 1),
  ];
  #state = h("div", { hidden: true }, this.#name, this.#facts, this.#tiles,
    h("div", { className: "charts" }, ...this.#charts.map((chart) => chart.element)));

  constructor() {
    view.append(this.#trouble, this.#state);
    window.addEventListener("key", () => this.#ask());
    this.#go();
  }

  /** Ask again and again while somebody looks at the page, until the server wants a key. */
  async #go() {
    for (;;) {
      if (!document.hidden && this.#trouble.querySelector("form") === null) await this.#ask();
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  }

  async #ask() {
    try {
      this.#take(await get("stats"));
      this.#trouble.replaceChildren();
    } catch (refusal) {
      this.#complain(refusal);
    }
    this.show();
  }

  #complain(refusal) {
    const key = ["address", "forbidden"].includes(refusal.kind) ? "error_stats" : errorKey(refusal);
    const box = h("div", { className: "error" }, text("p", key));
    if (refusal.kind === "key") box.append(keyForm(() => {}));
    this.#trouble.replaceChildren(box);
  }

  #take(stats) {
    const time = performance.now();
    const last = this.#last;
    this.#last = { time, stats };
    // What a server counts begins anew when it does.
    if (!last || stats.uptime_seconds < last.stats.uptime_seconds) return;
    const rate = (name) => Math.max(0, ((stats[name] - last.stats[name]) / (time - last.time)) * 1000);
    this.#samples.push({
      time,
      generation: rate("generation_tokens_total"),
      prompt: rate("prompt_tokens_total"),
      running: stats.requests_running,
      waiting: stats.requests_waiting,
      cache: stats.cache_usage,
    });
    this.#samples = this.#samples.filter((sample) => time - sample.time < SPAN);
  }

  /** Draw what is known, unless nobody looks at it. */
  show() {
    if (view.hidden || !this.#last) return;
    const { stats } = this.#last;
    this.#state.hidden = false;
    this.#name.textContent = stats.model;
    this.#facts.replaceChildren(
      h("span", { translate: false }, [stats.backend, stats.device, stats.dtype].join(" · ")),
      text("span", "max_context", { count: count(stats.max_context) }), uptime(stats.uptime_seconds));
    this.#tiles.replaceChildren(...tiles(stats));
    for (const chart of this.#charts) chart.draw(this.#samples);
  }
}

function tiles(stats) {
  const median = ({ p50 }) => (p50 === null ? "–" : duration(p50));
  const spread = ({ p95 }) => (p95 === null ? "" : text("dd", "spread", { time: duration(p95) }, { className: "dim" }));
  const { time_to_first_token_seconds: first, time_per_output_token_seconds: each } = stats;
  return [
    tile("running", count(stats.requests_running)),
    tile("waiting", count(stats.requests_waiting)),
    tile("cache_usage", percent(stats.cache_usage),
      text("dd", "preemptions", { count: count(stats.preemptions_total) }, { className: "dim" })),
    tile("hit_rate", percent(stats.prefix_cache_hit_rate)),
    tile("time_to_first", median(first), spread(first)),
    tile("per_token", median(each), spread(each)),
    tile("prompt_tokens", count(stats.prompt_tokens_total)),
    tile("generation_tokens", count(stats.generation_tokens_total)),
  ];
}

function tile(key, value, more = "") {
  return h("div", {}, text("dt", key), h("dd", {}, value), more);
}

function uptime(total) {
  const minutes = Math.floor(total / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  if (days) return text("span", "uptime_days", { days, hours: hours % 24 });
  if (hours) return text("span", "uptime_hours", { hours, minutes: minutes % 60 });
  return text("span", "uptime_minutes", { minutes });
}
