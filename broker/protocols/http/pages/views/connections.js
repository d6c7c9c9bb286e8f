// Who is connected; out with them.

import { ask, path } from "../lib/api.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { link } from "../lib/links.js";
import { listing } from "../lib/listing.js";
import { state } from "../lib/tables.js";

const FIELDS = [
  "name", "user_provided_name", "user", "vhost", "state", "ssl", "channels", "protocol", "node",
  "client_properties.product", "client_properties.version", "client_properties.client_id", "connected_at",
  "recv_oct_details.rate", "send_oct_details.rate",
];

export function connections(page) {
  const columns = [
    { title: "Name", sort: "name", name: true, cell: ({ name, channels, user_provided_name: own }) => [
      channels === undefined ? name : link(name, "channels", { name }), own && h("div", { class: "muted" }, own),
    ] },
    { title: "User", sort: "user", cell: ({ user }) => user },
    { title: "Virtual host", sort: "vhost", cell: ({ vhost }) => vhost },
    { title: "State", sort: "state", cell: (row) => state(row.state) },
    { title: "Protocol", sort: "protocol", cell: ({ protocol }) => protocol },
    { title: "Client", cell: ({ client_properties }) => client(client_properties ?? {}) },
    { title: "Node", sort: "node", cell: ({ node }) => node },
    { title: "TLS", sort: "ssl", cell: ({ ssl }) => (ssl ? "yes" : "no") },
    { title: "Channels", sort: "channels", number: true, cell: (row) => format.count(row.channels) },
    { title: "In", sort: "recv_oct_details.rate", number: true, cell: (row) => speed(row.recv_oct_details) },
    { title: "Out", sort: "send_oct_details.rate", number: true, cell: (row) => speed(row.send_oct_details) },
    { title: "For", sort: "connected_at", number: true, cell: ({ connected_at: at }) => format.duration(at ? Date.now() - at : NaN) },
    { title: "", cell: ({ name }) => h("button", { class: "danger", onclick: () => close(page, name) }, "Close") },
  ];
  const where = page.vhost ? ["vhosts", page.vhost, "connections"] : ["connections"];
  return listing(page, {
    title: "Connections", where, columns, fields: FIELDS, key: ({ name }) => name, empty: "Nobody is connected.",
  });
}

/** A client of AMQP says what it is, one of MQTT which. */
function client({ product, version, client_id: id }) {
  return id ?? [product, version].filter(Boolean).join(" ");
}

function speed(details) {
  return `${format.bytes(details?.rate ?? 0)}/s`;
}

function close(page, name) {
  return page.destroy(`Close the connection ${name}?`, "Close it",
    () => ask("DELETE", path("connections", name)), `${name} is closed.`);
}
