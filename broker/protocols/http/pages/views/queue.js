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
      const told = await get("queues", vhost, name, PAST);
      const isQuorum = told.type === "quorum"; // of others the API tells of no members
      const [bindings, held, members, nodes] = await Promise.all([
        getOr([], "queues", vhost, name, "bindings"),
        getOr([], "fluffle", "queues", vhost, name, "held"),
        isQuorum ? getOr([], "queues", "quorum", vhost, name, "status") : [],
        isQuorum ? getOr([], "nodes", { columns: "name" }) : [],
      ]);
      return { told, bindings, held, members, nodes };
    },
    view: ({ told, bindings, held, members, nodes }) => [
      h("h1", null, "Queue ", h("code", null, name), " ",
        h("span", { class: "muted" }, `in ${vhost}`)),
      h("p", { class: "badges" }, state(told.state), badge(told.type), features(told)),
      h("div", { class: "charts" }, length(told), flow(told)),
      panel("About it", about(told)),
      told.type === "quorum" &&
        panel("Members", raft(page, told, members, nodes)),
      ofMessages(),
      panel("Who holds messages", holders(held)),
      panel("Consumers", consumers(told.consumer_details ?? [])),
      panel("Bindings", bindingTable(page, bindings)),
      fold("Publish a message", publishing(page, { vhost, exchange: "amq.default", key: name })),
      fold("Purge or delete", ending(page, vhost, name)),
    ],
  };
}

function length(told) {
  const series = LENGTHS.map(([title, key]) => ({
    name: title,
    points: lengths(`${told.vhost}/${told.name}/${key}`, told[key], told[`${key}_details`]),
  }));
  return chart({ title: "Messages", series, format: format.short });
}

function flow({ vhost, name, message_stats = {} }) {
  const series = FLOWS.map(([title, key]) => ({
    name: title, points: rates(`${vhost}/${name}/${key}`, message_stats[key]),
  }));
  return chart({ title: "Messages a second", series, format: format.rate });
}

function about(told) {
  return facts([
    ["Messages", format.count(told.messages)], ["Ready", format.count(told.messages_ready)],
    ["Unacknowledged", format.count(told.messages_unacknowledged)],
    ["Bytes", told.message_bytes === undefined ? "" : format.bytes(told.message_bytes)],
    ["Consumers", format.count(told.consumers)], ["Node", told.node], ["Leader", told.leader],
    ["Members", (told.members ?? []).join(", ")], ["Arguments", format.pairs(told.arguments)],
    ["Policy", told.policy], ["Operator policy", told.operator_policy],
    ["Effective policy", format.pairs(told.effective_policy_definition)],
    ["Delivery limit", told.delivery_limit], ["Idle since", told.idle_since],
    ["Dead letters under way", told.messages_dlx ? format.count(told.messages_dlx) : ""],
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
