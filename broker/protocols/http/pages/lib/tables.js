// Tables that can be ordered, and the way through their pages.

import { h } from "./dom.js";
import * as format from "./format.js";

/**
 * `columns`: [{title, cell, sort, number}]; `cell` makes what stands there of a row.
 * `order`: {sort, reverse, by} if the columns with a `sort` can be clicked.
 */
export function table({ label, columns, rows, key, order, empty = "None." }) {
  if (!rows.length) return h("p", { class: "muted" }, empty);
  return h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" },
    h("table", null,
      h("thead", null, h("tr", null, columns.map((column) => head(column, order)))),
      h("tbody", null, rows.map((row) =>
        h("tr", { "data-key": key?.(row) }, columns.map(({ cell, number, name }) =>
          h("td", { class: number ? "number" : name ? "name" : null }, cell(row))))))));
}

function head({ title, sort, number }, order) {
  const props = { scope: "col", class: number ? "number" : null };
  if (!order || !sort) return h("th", props, title);
  const isSorted = order.sort === sort;
  const direction = order.reverse ? "descending" : "ascending";
  return h("th", { ...props, "aria-sort": isSorted ? direction : null },
    h("button", { class: "plain", onclick: () => order.by(sort, isSorted && !order.reverse) },
      title, isSorted && h("span", { "aria-hidden": "true" }, order.reverse ? " ↓" : " ↑")));
}

/** Which page of how many; `go` is called with another. */
export function pager({ page, page_count, filtered_count, total_count }, go) {
  const button = (label, to, is) =>
    h("button", { disabled: !is, onclick: () => go(to), "aria-label": `${label} page` }, label);
  const found = filtered_count === total_count
    ? format.count(total_count)
    : `${format.count(filtered_count)} of ${format.count(total_count)}`;
  return h("div", { class: "pager" },
    h("span", { class: "muted" }, `${found} · page ${page} of ${Math.max(1, page_count)}`),
    button("First", 1, page > 1), button("Previous", page - 1, page > 1),
    button("Next", page + 1, page < page_count), button("Last", page_count, page < page_count));
}

/** Names and what is said of them. */
export function facts(entries) {
  return h("dl", { class: "facts" }, entries
    .filter(([, value]) => value != null && value !== "" && value !== false)
    .map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

export function badge(text, kind) {
  return h("span", { class: kind ? `badge ${kind}` : "badge" }, text);
}

const GOOD = ["running", "up", "ok", "follower", "leader"];
const BAD = ["down", "minority", "crashed", "stopped", "unreachable", "blocked"];

/** A state, in a colour too. */
export function state(text = "") {
  return badge(text || "–", GOOD.includes(text) ? "good" : BAD.includes(text) ? "bad" : "");
}

export function panel(title, ...content) {
  return h("section", { class: "panel", "data-key": title }, h("h2", null, title), ...content);
}

/** What is shown once somebody wants it. */
export function fold(title, ...content) {
  return h("details", { class: "panel", "data-key": title }, h("summary", null, title), ...content);
}
