// The exchanges, and a drawing of what leads where.

import { ask, get, path } from "../lib/api.js";
import { drawing } from "../lib/drawing.js";
import * as format from "../lib/format.js";
import { form, table as lines, TABLE_HINT } from "../lib/forms.js";
import { exchangeLink } from "../lib/links.js";
import { listing } from "../lib/listing.js";
import { badge, fold, panel } from "../lib/tables.js";

const FIELDS = [
  "name", "vhost", "type", "durable", "auto_delete", "internal", "arguments", "policy",
  "message_stats.publish_in_details.rate", "message_stats.publish_out_details.rate",
];
/** Those that the default exchange has of itself, one for each queue, come last. */
const DRAWN = { page: 1, page_size: 200, sort: "source", sort_reverse: true, pagination: "true" };
const TYPES = [
  "direct", "fanout", "topic", "headers", "x-consistent-hash", "x-delayed-message", "x-jms-topic",
  "x-local-random", "x-modulus-hash", "x-random", "x-recent-history",
];

export function exchanges(page) {
  const columns = [
    { title: "Name", sort: "name", name: true, cell: ({ vhost, name }) => exchangeLink(vhost, name) },
    page.vhost === "" && { title: "Virtual host", sort: "vhost", cell: ({ vhost }) => vhost },
    { title: "Type", sort: "type", cell: (row) => [badge(row.type), traits(row)] },
    { title: "Arguments", cell: (row) => format.pairs(row.arguments) },
    flow("In", "publish_in_details"), flow("Out", "publish_out_details"),
  ];
  let bindings = [];
  const list = listing(page, {
    title: "Exchanges", where: ["exchanges", ...page.inVhost], columns, fields: FIELDS,
    key: ({ vhost, name }) => `${vhost}/${name}`,
    more: () => [
      panel("What leads where", drawing(bindings)),
      fold("Add an exchange", declare(page)),
    ],
  });
  return {
    ...list,
    async load() {
      const [found, every] = await Promise.all([
        list.load(), get("bindings", ...page.inVhost, DRAWN),
      ]);
      bindings = (every.items ?? every).filter(({ source }) => source !== "");
      return found;
    },
  };
}

function traits({ durable, auto_delete, internal, policy }) {
  return [
    durable === false && badge("transient"), auto_delete && badge("auto-delete"),
    internal && badge("internal"), policy && badge(policy, "policy"),
  ];
}

function flow(title, field) {
  return {
    title, sort: `message_stats.${field}.rate`, number: true,
    cell: ({ message_stats }) => format.rate(message_stats?.[field]?.rate ?? 0),
  };
}

function declare(page) {
  return form({
    key: "declare", submit: "Add the exchange",
    fields: [
      { name: "vhost", label: "Virtual host", type: "select", options: page.vhosts, value: page.vhost || "/" },
      { name: "name", label: "Name", required: true },
      { name: "type", label: "Type", type: "select", options: TYPES },
      { name: "durable", label: "Durable", type: "checkbox", value: true },
      { name: "internal", label: "Internal", type: "checkbox" },
      { name: "arguments", label: "Arguments", type: "textarea", hint: TABLE_HINT, placeholder: "alternate-exchange = other" },
    ],
    act: ({ vhost, name, arguments: text, ...rest }) => page.act(() =>
      ask("PUT", path("exchanges", vhost, name), { ...rest, auto_delete: false, arguments: lines(text) }),
    `Exchange “${name}” is there.`),
  });
}
