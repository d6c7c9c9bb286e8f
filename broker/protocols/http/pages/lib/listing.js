// A list that may be long: the broker filters, orders and cuts it into pages.

import { get } from "./api.js";
import { h } from "./dom.js";
import { pager, table } from "./tables.js";

const SIZE = 100;
const TYPED_MS = 250;

/**
 * A page of the list at `where`, with the `columns` of a table.
 * `fields`: what is asked of each row; `more` makes what stands below, of what was found.
 */
export function listing(page, { title, where, columns, fields, key, empty, more }) {
  const { query } = page;
  const order = {
    sort: query.sort ?? "name",
    reverse: query.sort_reverse === "true",
    by: (sort, reverse) => page.ask({ sort, sort_reverse: reverse ? "true" : "", page: "" }),
  };
  return {
    title,
    load: () => get(...where, {
      page: query.page || 1, page_size: SIZE, name: query.name,
      use_regex: query.use_regex || "false", sort: order.sort, sort_reverse: order.reverse,
      columns: fields?.join(","), pagination: "true",
    }),
    view: (found) => [
      h("h1", null, title),
      h("div", { class: "bar" }, filter(page), pager(found, (to) => page.ask({ page: to }))),
      table({
        label: title, rows: found.items, key, order, columns: columns.filter(Boolean),
        empty: query.name ? "None has such a name." : empty,
      }),
      more?.(found),
    ],
  };
}

function filter(page) {
  let timer;
  return h("form", { class: "filter", role: "search", onsubmit: (event) => event.preventDefault() },
    h("label", { for: "filter" }, "Name"),
    h("input", {
      id: "filter", type: "search", value: page.query.name, spellcheck: "false",
      placeholder: "press / to filter",
      oninput: (event) => {
        clearTimeout(timer);
        timer = setTimeout(() => page.ask({ name: event.target.value, page: "" }), TYPED_MS);
      },
    }),
    h("label", null, h("input", {
      type: "checkbox", checked: page.query.use_regex === "true",
      onchange: (event) => page.ask({ use_regex: event.target.checked ? "true" : "", page: "" }),
    }), " regular expression"));
}
