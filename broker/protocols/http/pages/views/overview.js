// How the broker is: what flows, what lies there, how its nodes are.

import { get, getOr } from "../lib/api.js";
import { chart } from "../lib/charts.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { lengths, noted, rates } from "../lib/history.js";
import { link } from "../lib/links.js";
import { badge, facts, panel, state, table } from "../lib/tables.js";

const PAST = {
  msg_rates_age: 600, msg_rates_incr: 10, lengths_age: 600, lengths_incr: 10,
};
const FLOWS = [
  ["Published", "publish_details"],
  ["Delivered", "deliver_get_details"],
  ["Acknowledged", "ack_details"],
];
const LENGTHS = [["Ready", "messages_ready"], ["Unacknowledged", "messages_unacknowledged"]];
const TOTALS = ["connections", "channels", "exchanges", "queues", "consumers"];

export function overview() {
  return {
    title: "Overview",
    async load() {
      const [totals, nodes] = await Promise.all([get("overview", PAST), getOr([], "nodes")]);
      return { totals, nodes };
    },
    view: ({ totals, nodes }) => [
      h("h1", null, "Overview"),
      alarms(nodes),
      h("ul", { class: "totals" }, TOTALS.map((name) => h("li", null,
        h("b", null, format.count(totals.object_totals?.[name])), total(name)))),
      h("div", { class: "charts" }, flow(totals), length(totals),
        nodes.length > 0 && memory(nodes), nodes.length > 0 && disk(nodes)),
      nodes.length > 0 && panel("Nodes", nodeTable(nodes)),
      panel("This broker", facts([
        ["Version", versions(totals)],
        ["Cluster", totals.cluster_name], ["Answered by", totals.node],
        ["Listens on", (totals.listeners ?? []).map(({ protocol, ip_address, port }) =>
          `${protocol} ${ip_address}:${port}`).join(", ")],
      ])),
    ],
  };
}

function versions({ fluffle_version: own, rabbitmq_version: alike }) {
  return own ? `fluffle ${own}, like RabbitMQ ${alike}` : alike;
}

function total(name) {
  return name === "consumers" ? name : link(name, name);
}

function alarms(nodes) {
  const raised = nodes.flatMap((node) => [
    node.mem_alarm && `${node.name}: memory is short, publishers wait`,
    node.disk_free_alarm && `${node.name}: disk space is short, publishers wait`,
    node.running === false && `${node.name} is not running`,
  ].filter(Boolean));
  return raised.map((text) => h("p", { class: "alarm", "data-key": text }, text));
}

function flow({ message_stats = {} }) {
  const series = FLOWS.map(([name, key]) => ({ name, points: rates(key, message_stats[key]) }));
  return chart({ title: "Messages a second", series, format: format.rate });
}

function length({ queue_totals = {} }) {
  const series = LENGTHS.map(([name, key]) => ({
    name, points: lengths(key, queue_totals[key], queue_totals[`${key}_details`]),
  }));
  return chart({ title: "Messages in queues", series, format: format.short });
}

function memory(nodes) {
  return chart({ title: "Memory", series: ofNodes(nodes, "mem_used"), format: format.bytes });
}

function disk(nodes) {
  return chart({ title: "Disk space left", series: ofNodes(nodes, "disk_free"), format: format.bytes });
}

function ofNodes(nodes, key) {
  return nodes.map((node) => ({ name: node.name, points: noted(`${key} ${node.name}`, node[key]) }));
}

function nodeTable(nodes) {
  return table({
    label: "Nodes", rows: nodes, key: (node) => node.name,
    columns: [
      { title: "Node", cell: (node) => link(node.name, "cluster"), name: true },
      { title: "State", cell: (node) => [
        state(node.running === false ? "down" : "running"),
        node.being_drained && badge("maintenance", "warn"),
      ] },
      { title: "Memory", cell: ({ mem_used, mem_limit }) => filled("Memory", mem_used, mem_limit) },
      { title: "Disk left", cell: (node) => format.bytes(node.disk_free), number: true },
      { title: "Files", cell: ({ fd_used, fd_total }) => `${format.count(fd_used)} of ${format.short(fd_total)}`, number: true },
      { title: "Up", cell: (node) => format.duration(node.uptime), number: true },
    ],
  });
}

function filled(label, used, limit) {
  return [
    h("meter", { min: 0, max: limit || 1, high: 0.8 * limit, optimum: 0, value: used ?? 0, "aria-label": label }),
    ` ${format.bytes(used)} of ${format.bytes(limit)}`,
  ];
}
