// Why a message goes where it goes, or nowhere; nothing is published.

import { ask, path } from "../lib/api.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { form, table as lines, TABLE_HINT } from "../lib/forms.js";
import { exchangeLink, queueLink } from "../lib/links.js";
import { badge, panel, table } from "../lib/tables.js";

export function explain(page) {
  const { query } = page;
  let found;
  let vhost = query.vhost || page.vhost || page.vhosts[0];

  const fields = [
    { name: "vhost", label: "Virtual host", type: "select", options: page.vhosts, value: vhost },
    { name: "exchange", label: "Exchange", value: query.exchange, hint: "empty for the default one" },
    { name: "routing_key", label: "Routing key", value: query.key },
    { name: "headers", label: "Headers", type: "textarea", hint: TABLE_HINT },
    { name: "properties", label: "Properties", type: "textarea", hint: TABLE_HINT },
  ];

  async function act(values) {
    ({ vhost } = values);
    await page.act(async () => {
      found = await ask("POST", path("fluffle", "explain", vhost), {
        exchange: values.exchange, routing_key: values.routing_key,
        headers: lines(values.headers), properties: lines(values.properties),
      });
      page.draw();
      return found.routed ? "It would be routed." : "It would be routed nowhere.";
    });
  }

  return {
    title: "Explain a message",
    load: async () => null,
    view: () => [
      h("h1", null, "Explain a message"),
      h("p", { class: "muted" }, "Which bindings a message would match, which not, and why. Nothing is published."),
      panel("The message", form({ key: "explain", submit: "Explain", fields, act })),
      found && explanation(found, vhost),
    ],
  };
}

function explanation({ routed, queues, exchanges }, vhost) {
  return h("div", { id: "explanation", "data-key": "explanation" },
    panel("Goes to", routed
      ? h("p", null, queues.map((name, index) => [index > 0 && ", ", queueLink(vhost, name)]))
      : h("p", { class: "alarm" }, "Nowhere: no binding leads to a queue. It would be dropped, or returned if it is mandatory.")),
    exchanges.map((visit) => h("section", { class: "panel", "data-key": visit.name },
      h("h2", null, exchangeLink(vhost, visit.name), " ", badge(visit.type)),
      h("p", { class: "muted" }, `${visit.came} ${visit.name || "the default exchange"}`),
      table({
        label: `Bindings of ${visit.name}`, rows: visit.bindings, empty: "No bindings.",
        columns: [
          { title: "", cell: ({ matches }) => badge(matches ? "matches" : "no", matches ? "good" : "") },
          { title: "To", name: true, cell: (row) => row.destination_type === "queue"
            ? queueLink(vhost, row.destination) : exchangeLink(vhost, row.destination) },
          { title: "Routing key", cell: (row) => h("code", null, row.routing_key) },
          { title: "Arguments", cell: (row) => format.pairs(row.arguments) },
          { title: "Why not", cell: ({ reason }) => reason },
        ],
      }),
      visit.notes.map((note) => h("p", null, note)))));
}
