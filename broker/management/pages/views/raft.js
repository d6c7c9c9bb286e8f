// The members of a quorum queue: who leads, how far each is; more, fewer, another leader.

import { ask, path, verb } from "../lib/api.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { form } from "../lib/forms.js";
import { badge, state, table } from "../lib/tables.js";

/** `members`: names; `rows`: what those say that answer. */
export function raft(page, vhost, name, members, rows) {
  const told = new Map(rows.map((row) => [row.node, row]));
  const leader = rows.find(({ role }) => role === "leader");
  const every = [...new Set([...members, ...told.keys()])].map((node) => told.get(node) ?? { node });
  const isAdministrator = page.is();
  return [
    table({
      label: "Members", rows: every, key: ({ node }) => node,
      columns: [
        { title: "Node", name: true, cell: ({ node }) => node },
        { title: "Role", cell: ({ role, membership, quarantined }) => [
          state(role ?? "down"), membership === "learner" && badge("learner", "warn"), quarantined && badge("quarantined", "bad"),
        ] },
        number("Term", "term"), number("Last", "last"), number("On disk", "durable"),
        number("Committed", "commit"), number("Applied", "applied"), number("Snapshot", "snapshot"),
        { title: "Behind", number: true, cell: ({ last }) => format.count(leader && leader.last - last) },
        isAdministrator && { title: "", cell: ({ node, role }) => h("span", { class: "buttons" },
          role && role !== "leader" && h("button", { onclick: () => page.act(
            () => verb("queues.transfer", { vhost, name, node }), `${node} is asked to lead.`) }, "Let lead"),
          every.length > 1 && h("button", { class: "danger", onclick: () => page.destroy(
            `Take the member of “${name}” from ${node}?`, "Remove",
            () => verb("queues.delete_member", { vhost, name, node }), `${node} is a member no more.`) }, "Remove")) },
      ].filter(Boolean),
    }),
    isAdministrator && form({
      key: "member", submit: "Add a member",
      fields: [{ name: "node", label: "On the node", required: true }],
      act: ({ node }) => page.act(
        () => ask("POST", path("fluffle", "verbs", "queues.add_member"), { vhost, name, node }), `${node} becomes a member.`),
    }),
  ];
}

function number(title, field) {
  return { title, number: true, cell: (row) => format.count(row[field]) };
}
