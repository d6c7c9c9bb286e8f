// Charts of numbers over time.

import { h, svg } from "./dom.js";
import { bytes } from "./format.js";

const WIDTH = 600;
const HEIGHT = 120;

/** `series`: [{name, points: [{at, value}]}], times in ms; `format` makes text of a value. */
export function chart({ title, series, format }) {
  const all = series.flatMap(({ points }) => points);
  const top = topOf(Math.max(0, ...all.map(({ value }) => value)), format === bytes ? 1024 : 1000);
  const [from, until] = spanOf(all);
  const x = (at) => ((at - from) / Math.max(1, until - from)) * WIDTH;
  const y = (value) => HEIGHT - (Math.min(value, top) / top) * (HEIGHT - 2) - 1;
  const now = series.map(({ name, points }) => `${name} ${format(points.at(-1)?.value)}`);
  return h("figure", { class: "chart", "data-key": title },
    h("figcaption", null, title),
    h("div", { class: "plot" },
      svg("svg", {
        viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
        "aria-label": `${title}: ${now.join(", ")}`,
      },
      [0, 0.5, 1].map((part) =>
        svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y(part * top), y2: y(part * top) })),
      series.map(({ points }, index) => svg("polyline", {
        class: `line s${index}`,
        points: lineOf(points, x, y).join(" "),
      }))),
      h("span", { class: "top" }, format(top)),
      h("span", { class: "from" }, ago(until - from)),
      h("span", { class: "until" }, "now")),
    h("ul", { class: "legend" }, series.map(({ name, points }, index) =>
      h("li", null, h("i", { class: `key s${index}` }), name, " ",
        h("b", null, format(points.at(-1)?.value))))));
}

/** A number of the kind 1, 2 or 5 with zeros, and a unit, that is not below. */
function topOf(value, base) {
  if (!(value > 0)) return 1;
  const unit = base ** Math.max(0, Math.floor(Math.log(value) / Math.log(base)));
  const power = 10 ** Math.floor(Math.log10(value / unit));
  return [1, 2, 5, 10].find((each) => each * power * unit >= value) * power * unit;
}

/** As a line, though there may be but one. */
function lineOf(points, x, y) {
  const drawn = points.map(({ at, value }) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
  return points.length === 1 ? [...drawn, `${WIDTH},${y(points[0].value).toFixed(1)}`] : drawn;
}

function spanOf(points) {
  const times = points.map(({ at }) => at);
  return times.length ? [Math.min(...times), Math.max(...times)] : [0, 1];
}

function ago(ms) {
  const s = Math.round(ms / 1000);
  return s >= 120 ? `${Math.round(s / 60)} min ago` : `${s} s ago`;
}
