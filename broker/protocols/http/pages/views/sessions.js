// The sessions of MQTT clients, also of those that are away.

import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { queueLink } from "../lib/links.js";
import { listing } from "../lib/listing.js";
import { badge } from "../lib/tables.js";

export function sessions(page) {
  const columns = [
    { title: "Client", sort: "name", name: true, cell: ({ client_id: id, connection }) => [
      id, h("div", { class: "muted" }, connection || "away"),
    ] },
    { title: "User", sort: "user", cell: ({ user }) => user },
    { title: "Virtual host", sort: "vhost", cell: ({ vhost }) => vhost },
    { title: "Node", sort: "node", cell: ({ node }) => node },
    { title: "Subscriptions", cell: ({ subscriptions = [] }) => subscriptions.map(({ topic_filter: filter, qos }) =>
      badge(`${filter} · ${qos}`)) },
    { title: "Queues", cell: ({ vhost, queues = [] }) => queues.map((name) =>
      h("div", null, queueLink(vhost, name))) },
    { title: "To it", number: true, cell: (row) => format.count(row.packets_to_client) },
    { title: "From it", number: true, cell: (row) => format.count(row.packets_from_client) },
    { title: "Ends", sort: "expires_at_ms", cell: ({ expires_at_ms: at }) => (at === null ? "" : format.moment(at)) },
    { title: "Lasts", number: true, cell: ({ expiry_s: s }) => (s === null ? "always" : format.duration(s * 1000)) },
  ];
  const where = page.vhost ? ["mqtt", "sessions", page.vhost] : ["mqtt", "sessions"];
  return listing(page, {
    title: "MQTT sessions", where, columns, key: ({ vhost, client_id: id }) => `${vhost} ${id}`,
    empty: "No MQTT client has a session.",
  });
}
