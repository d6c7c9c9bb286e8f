// The nodes, how they see each other, what is low; out of service and back.

import { getOr, get, verb } from "../lib/api.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { badge, facts, panel, state, table } from "../lib/tables.js";

export function cluster(page) {
  return {
    title: "Cluster",
    async load() {
      if (!page.is("monitoring")) return { nodes: [], members: [], alarms: [] };
      const [nodes, members, alarms] = await Promise.all([
        get("nodes"), asked(page, "cluster.status"), asked(page, "alarms.list"),
      ]);
      return { nodes, members, alarms };
    },
    view: ({ nodes, members, alarms }) => [
      h("h1", null, "Cluster"),
      !page.is("monitoring") && h("p", null, "This page needs the tag monitoring."),
      alarms.map((alarm) => h("p", { class: "alarm" }, format.pairs(alarm))),
      members.length > 0 && panel("Members", memberTable(members)),
      nodes.map((node) => panel(node.name, about(node))),
      page.is() && panel("This node’s service", service(page, nodes)),
    ],
  };
}

/** Empty for who is no administrator, and on a node that is alone. */
async function asked(page, name) {
  if (!page.is()) return [];
  try {
    return await verb(name);
  } catch (error) {
    if (error.status !== 400) throw error;
    return [];
  }
}

function memberTable(rows) {
  return table({
    label: "Members", rows, key: ({ node }) => node,
    columns: [
      { title: "Node", name: true, cell: ({ node }) => node },
      { title: "Role", cell: ({ role }) => role },
      { title: "State", cell: (row) => [state(row.state), row.maintenance && badge("maintenance", "warn")] },
      { title: "Link", cell: ({ link, hindrance }) => [state(link ? "up" : "down"), hindrance] },
      { title: "Address", cell: ({ address }) => address },
      { title: "Clock ahead", number: true, cell: ({ clock_ahead_ms: ms }) => (ms === null ? "–" : `${ms} ms`) },
    ],
  });
}

function about(node) {
  return [
    h("p", null, state(node.running === false ? "down" : "running"),
      node.mem_alarm && badge("memory alarm", "bad"), node.disk_free_alarm && badge("disk alarm", "bad"),
      node.being_drained && badge("maintenance", "warn")),
    facts([
      ["Memory", `${format.bytes(node.mem_used)} of ${format.bytes(node.mem_limit)}`],
      ["Disk left", `${format.bytes(node.disk_free)}, alarm below ${format.bytes(node.disk_free_limit)}`],
      ["Files", `${format.count(node.fd_used)} of ${format.count(node.fd_total)}`],
      ["Up", format.duration(node.uptime)], ["Processors", format.count(node.processors)],
      ["Version", node.rabbitmq_version], ["Process", node.os_pid], ["Data", node.db_dir],
      ["Logs", (node.log_files ?? []).join(", ")],
      ["Links", (node.cluster_links ?? []).map(({ peer_name, name }) => name ?? peer_name).join(", ")],
      ["Partitions", (node.partitions ?? []).join(", ")],
    ]),
  ];
}

function service(page, nodes) {
  const name = page.overview.node ?? nodes[0]?.name;
  return [
    h("p", { class: "muted" }, `Others lead what ${name} leads, its clients go elsewhere and new ones find nobody; it remains a member.`),
    h("p", { class: "buttons" },
      h("button", { class: "danger", onclick: () => page.destroy(
        `Take ${name} out of service and close its connections?`, "Take it out", () => verb("node.drain"), `${name} is out of service.`) },
      "Take out of service"),
      h("button", { onclick: () => page.act(() => verb("node.revive"), `${name} is back.`) }, "Back into service")),
  ];
}
