// One queue: how it is, what lies in it, and what can be done with that.

import { ask, get, getOr, path } from "../lib/api.js";
import { chart } from "../lib/charts.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { lengths, rates } from "../lib/history.js";
import { exchangeLink, link } from "../lib/links.js";
import { badge, facts, fold, panel, state, table } from "../lib/tables.js";
import { unbind } from "./exchange.js";
import { holders, messages } from "./messages.js";
import { publishing } from "./publishing.js";
import { features } from "./queues.js";
import { raft } from "./raft.js";

const PAST = { msg_rates_age: 600, msg_rates_incr: 10, lengths_age: 600, lengths_incr: 10 };
const FLOWS = [
  ["In", "publish_details"], ["Out", "deliver_get_details"], ["Acknowledged", "ack_details"],
];
const LENGTHS = [["Ready", "messages_ready"], ["Unacknowledged", "messages_unacknowledged"]];

export function queue(page) {
  const [vhost, name] = page.params;
  const ofMessages = messages(page, vhost, name);
  return {
    title: name,
    async load() {
      const row = await get("queues", vhost, name, PAST);
      const isQuorum = row.type === "quorum"; // the API names no members of others
      const [bindings, held, members, nodes] = await Promise.all([
        getOr([], "queues", vhost, name, "bindings"),
        getOr([], "fluffle", "queues", vhost, name, "held"),
        isQuorum ? getOr([], "queues", "quorum", vhost, name, "status") : [],
        isQuorum ? getOr([], "nodes", { columns: "name" }) : [],
      ]);
      return { row, bindings, held, members, nodes };
    },
    view: ({ row, bindings, held, members, nodes }) => [
      h("h1", null, "Queue ", h("code", null, name), " ",
        h("span", { class: "muted" }, `in ${vhost}`)),
      h("p", { class: "badges" }, state(row.state), badge(row.type), features(row)),
      h("div", { class: "charts" }, length(row), flow(row)),
      panel("About it", about(row)),
      row.type === "quorum" &&
        panel("Members", raft(page, row, members, nodes)),
      ofMessages(),
      panel("Who holds messages", holders(held)),
      panel("Consumers", consumers(row.consumer_details ?? [])),
      panel("Bindings", bindingTable(page, bindings)),
      fold("Publish a message", publishing(page, { vhost, exchange: "amq.default", key: name })),
      fold("Purge or delete", ending(page, vhost, name)),
    ],
  };
}

function length(row) {
  const series = LENGTHS.map(([title, key]) => ({
    name: title,
    points: lengths(`${row.vhost}/${row.name}/${key}`, row[key], row[`${key}_details`]),
  }));
  return chart({ title: "Messages", series, format: format.short });
}

function flow({ vhost, name, message_stats = {} }) {
  const series = FLOWS.map(([title, key]) => ({
    name: title, points: rates(`${vhost}/${name}/${key}`, message_stats[key]),
  }));
  return chart({ title: "Messages a second", series, format: format.rate });
}

function about(row) {
  return facts([
    ["Messages", format.count(row.messages)], ["Ready", format.count(row.messages_ready)],
    ["Unacknowledged", format.count(row.messages_unacknowledged)],
    ["Bytes", row.message_bytes === undefined ? "" : format.bytes(row.message_bytes)],
    ["Consumers", format.count(row.consumers)], ["Node", row.node], ["Leader", row.leader],
    ["Members", (row.members ?? []).join(", ")], ["Arguments", format.pairs(row.arguments)],
    ["Policy", row.policy], ["Operator policy", row.operator_policy],
    ["Effective policy", format.pairs(row.effective_policy_definition)],
    ["Delivery limit", row.delivery_limit], ["Idle since", row.idle_since],
    ["Dead letters under way", row.messages_dlx ? format.count(row.messages_dlx) : ""],
  ]);
}

function consumers(rows) {
  return table({
    label: "Consumers", rows, empty: "Nobody consumes.",
    key: (row) => `${row.channel_details?.name} ${row.consumer_tag}`,
    columns: [
      { title: "Tag", cell: (row) => row.consumer_tag, name: true },
      { title: "Channel", cell: ({ channel_details }) => channel_details?.name
        ? link(channel_details.name, "channels", { name: channel_details.connection_name }) : "–" },
      { title: "Acknowledges", cell: (row) => (row.ack_required ? "yes" : "no") },
      { title: "Prefetch", cell: (row) => format.count(row.prefetch_count), number: true },
      { title: "Activity", cell: (row) => state(row.activity_status ?? "up") },
    ],
  });
}

function bindingTable(page, rows) {
  return table({
    label: "Bindings", rows, key: (row) => `${row.source} ${row.properties_key}`,
    columns: [
      { title: "From", cell: (row) => exchangeLink(row.vhost, row.source), name: true },
      { title: "Routing key", cell: (row) => h("code", null, row.routing_key) },
      { title: "Arguments", cell: (row) => format.pairs(row.arguments) },
      { title: "", cell: (row) => row.source !== "" && h("button", { onclick: () => unbind(page, row) }, "Unbind") },
    ],
  });
}

function ending(page, vhost, name) {
  return h("p", { class: "buttons" },
    h("button", {
      class: "danger", id: "purge",
      onclick: () => page.destroy(`Drop all ready messages of “${name}”?`, "Purge",
        () => ask("DELETE", path("queues", vhost, name, "contents")), `“${name}” is purged.`),
    }, "Purge"),
    h("button", {
      class: "danger", id: "delete",
      onclick: () => page.destroy(`Delete “${name}” with all of its messages?`, "Delete",
        async () => {
          await ask("DELETE", path("queues", vhost, name));
          page.go("queues");
          return false;
        }),
    }, "Delete"));
}
