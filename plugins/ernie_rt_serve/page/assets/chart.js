// A chart of the last minutes, in SVG.
import { h, svg, text } from "./dom.js";
import { say, t } from "./language.js";

export const SPAN = 300_000; // milliseconds that a chart shows
const HEIGHT = 168;
const LEFT = 46;
const TOP = 10;
const BOTTOM = 24;
const MINUTES = [4, 2];
const NOWHERE = -1;

export class Chart {
  element = h("section", { className: "chart" });
  #series;
  #format;
  #axis;
  #most;
  #samples = [];
  #pointed = NOWHERE;
  #values;
  #picture = svg("svg", { role: "img" });

  /**
   * `series` names for each value of a sample the text that tells what it is. `format` makes texts of values in the
   * legend, `axis` on the axis; `most` is the highest that there can be.
   */
  constructor(title, series, format, axis, most) {
    this.#series = Object.keys(series);
    this.#format = format;
    this.#axis = axis;
    this.#most = most;
    this.#values = this.#series.map(() => h("b"));
    const legend = Object.values(series).map((key, index) =>
      h("span", { className: `entry series-${index}` }, text("span", key), this.#values[index]));
    this.element.append(h("header", {}, text("h2", title), h("p", { className: "legend" }, ...legend)), this.#picture);
    this.#picture.onpointermove = ({ offsetX }) => this.#point(offsetX);
    this.#picture.onpointerleave = () => this.#point(NOWHERE);
    new ResizeObserver(() => this.draw(this.#samples)).observe(this.element);
  }

  #point(x) {
    this.#pointed = x;
    this.draw(this.#samples);
  }

  /** Samples have a `time` and a value of each series, the latest last. */
  draw(samples) {
    this.#samples = samples;
    const width = this.#picture.clientWidth;
    if (!width) return;
    const now = samples.at(-1)?.time ?? 0;
    const highest = Math.max(0, ...samples.flatMap((sample) => this.#series.map((name) => sample[name])));
    const top = this.#most ?? ceiling(highest);
    const x = (time) => LEFT + (1 - (now - time) / SPAN) * (width - LEFT);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    const sample = this.#nearest(samples, x);
    this.#picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.#picture.replaceChildren(...this.#grid(top, width, x, y, now), ...this.#lines(samples, x, y), ...marker(sample, x));
    this.#values.forEach((element, index) => {
      element.textContent = sample ? this.#format(sample[this.#series[index]]) : "–";
    });
    this.#picture.setAttribute("aria-label", this.element.querySelector("header").textContent);
  }

  #grid(top, width, x, y, now) {
    const levels = [0, top / 2, top].flatMap((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: width, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, this.#axis(value)),
    ]);
    const times = MINUTES.map((minutes) =>
      svg("text", { x: x(now - minutes * 60_000), y: HEIGHT - 6, "text-anchor": "middle" }, t("chart_past", { minutes })));
    return [...levels, ...times, svg("text", { x: width - 2, y: HEIGHT - 6, "text-anchor": "end" }, t("chart_now"))];
  }

  #lines(samples, x, y) {
    if (samples.length < 2) return [];
    return this.#series.flatMap((name, index) => {
      const points = samples.map((sample) => `${x(sample.time).toFixed(1)} ${y(sample[name]).toFixed(1)}`).join("L");
      const area = `M${x(samples[0].time)} ${y(0)}L${points}L${x(samples.at(-1).time)} ${y(0)}Z`;
      return [
        svg("path", { class: `area series-${index}`, d: area }),
        svg("path", { class: `line series-${index}`, d: `M${points}` }),
      ];
    }).reverse();
  }

  /** The sample under the pointer, or the latest. */
  #nearest(samples, x) {
    if (this.#pointed === NOWHERE || !samples.length) return samples.at(-1);
    const distance = (sample) => Math.abs(x(sample.time) - this.#pointed);
    return samples.reduce((best, sample) => (distance(sample) < distance(best) ? sample : best));
  }
}

function marker(sample, x) {
  if (!sample) return [];
  return [svg("line", { class: "marker", x1: x(sample.time), x2: x(sample.time), y1: TOP, y2: HEIGHT - BOTTOM })];
}

/** The least round number that is not below a value. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 4, 6, 10].map((step) => step * power).find((round) => round >= value && round >= 2);
}
