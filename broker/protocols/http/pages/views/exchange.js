// One exchange: what leads to it and where it leads; more of that, and messages.

import { ask, get, path } from "../lib/api.js";
import { chart } from "../lib/charts.js";
import { drawing } from "../lib/drawing.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { form, table as lines, TABLE_HINT } from "../lib/forms.js";
import { rates } from "../lib/history.js";
import { exchangeLink, exchangeName, link, queueLink } from "../lib/links.js";
import { badge, facts, fold, panel, table } from "../lib/tables.js";
import { publishing } from "./publishing.js";

const PAST = { msg_rates_age: 600, msg_rates_incr: 10 };

export function exchange(page) {
  const [vhost, name] = page.params;
  const isDefault = name === "amq.default";
  return {
    title: isDefault ? exchangeName("") : name,
    async load() {
      const [row, from, onto] = await Promise.all([
        get("exchanges", vhost, name, PAST),
        get("exchanges", vhost, name, "bindings", "source"),
        get("exchanges", vhost, name, "bindings", "destination"),
      ]);
      return { row, from, onto };
    },
    view: ({ row, from, onto }) => [
      h("h1", null, "Exchange ", h("code", null, exchangeName(row.name)), " ", h("span", { class: "muted" }, `in ${vhost}`)),
      h("p", null, badge(row.type), row.internal && badge("internal"), row.durable === false && badge("transient")),
      h("div", { class: "charts" }, flow(row)),
      panel("About it", facts([
        ["Arguments", format.pairs(row.arguments)], ["Policy", row.policy], ["Auto-delete", row.auto_delete && "yes"],
        ["Explain", link("where a message would go", "explain", { vhost, exchange: row.name })],
      ])),
      panel("Bindings", isDefault
        ? h("p", { class: "muted" }, "It leads to every queue, by the queue's name.")
        : [drawing([...onto, ...from]), bindings(page, from)]),
      !isDefault && fold("Add a binding", binding(page, vhost, name)),
      fold("Publish a message", publishing(page, { vhost, exchange: name, key: "" })),
      !isDefault && !name.startsWith("amq.") && fold("Delete", h("button", {
        class: "danger",
        onclick: () => page.destroy(`Delete the exchange “${name}” with its bindings?`, "Delete", async () => {
          await ask("DELETE", path("exchanges", vhost, name));
          page.go("exchanges");
          return false;
        }),
      }, "Delete")),
    ],
  };
}

function flow({ vhost, name, message_stats = {} }) {
  const series = [["In", "publish_in_details"], ["Out", "publish_out_details"]].map(([title, key]) => ({
    name: title, points: rates(`${vhost}/exchange/${name}/${key}`, message_stats[key]),
  }));
  return chart({ title: "Messages a second", series, format: format.rate });
}

function bindings(page, rows) {
  return table({
    label: "Bindings", rows, key: (row) => `${row.destination_type} ${row.destination} ${row.properties_key}`,
    empty: "It leads nowhere.",
    columns: [
      { title: "To", name: true, cell: (row) => row.destination_type === "queue"
        ? queueLink(row.vhost, row.destination) : exchangeLink(row.vhost, row.destination) },
      { title: "Kind", cell: (row) => row.destination_type },
      { title: "Routing key", cell: (row) => h("code", null, row.routing_key) },
      { title: "Arguments", cell: (row) => format.pairs(row.arguments) },
      { title: "", cell: (row) => h("button", { onclick: () => unbind(page, row) }, "Unbind") },
    ],
  });
}

export function unbind(page, { vhost, source, destination, destination_type: kind, properties_key }) {
  return page.destroy(`Unbind “${destination}” from “${source}”?`, "Unbind",
    () => ask("DELETE", path("bindings", vhost, "e", source, kind[0], destination, properties_key)),
    "The binding is gone.");
}

function binding(page, vhost, name) {
  return form({
    key: "bind", submit: "Bind",
    fields: [
      { name: "kind", label: "To a", type: "select", options: [["q", "queue"], ["e", "exchange"]] },
      { name: "destination", label: "Name", required: true },
      { name: "routing_key", label: "Routing key" },
      { name: "arguments", label: "Arguments", type: "textarea", hint: TABLE_HINT },
    ],
    act: ({ kind, destination, routing_key, arguments: text }) => page.act(() =>
      ask("POST", path("bindings", vhost, "e", name, kind, destination), { routing_key, arguments: lines(text) }),
    `“${destination}” is bound.`),
  });
}
