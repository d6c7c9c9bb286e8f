// The members of a quorum queue: who leads, how far each is; more, fewer, another leader.

import { verb } from "../lib/api.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { form } from "../lib/forms.js";
import { badge, state, table } from "../lib/tables.js";

/** `members`: names; `rows`: what those say that answer; `nodes`: all of the cluster. */
export function raft(page, { vhost, name, members = [] }, rows, nodes) {
  const byNode = new Map(rows.map((row) => [row["Node Name"], row]));
  const leader = rows.find((row) => row["Raft State"] === "leader");
  const every = [...new Set([...members, ...byNode.keys()])]
    .map((node) => ({ ...byNode.get(node), node, role: byNode.get(node)?.["Raft State"] }));
  const others = nodes.map((node) => node.name).filter((node) => !members.includes(node));
  const isAdministrator = page.is();
  return [
    table({
      label: "Members", rows: every, key: ({ node }) => node,
      columns: [
        { title: "Node", name: true, cell: ({ node }) => node },
        { title: "Role", cell: ({ role, Membership: kind }) => [
          state(role ?? "down"), kind && kind !== "voter" && badge(kind, "warn"),
        ] },
        number("Term", "Term"), number("Last", "Last Log Index"), number("On disk", "Last Written"),
        number("Committed", "Commit Index"), number("Applied", "Last Applied"),
        number("Snapshot", "Snapshot Index"),
        { title: "Behind", number: true, cell: (row) =>
          format.count(leader && leader["Last Log Index"] - row["Last Log Index"]) },
        isAdministrator && { title: "", cell: ({ node, role }) => h("span", { class: "buttons" },
          role && role !== "leader" && h("button", { onclick: () => page.act(
            () => verb("queues.transfer", { vhost, name, node }), `${node} is asked to lead.`) }, "Let lead"),
          every.length > 1 && h("button", { class: "danger", onclick: () => page.destroy(
            `Take the member of “${name}” from ${node}?`, "Remove",
            () => verb("queues.delete_member", { vhost, name, node }), `${node} is a member no more.`) }, "Remove")) },
      ].filter(Boolean),
    }),
    isAdministrator && others.length > 0 && form({
      key: "member", submit: "Add a member",
      fields: [{ name: "node", label: "On the node", type: "select", options: others }],
      act: ({ node }) => page.act(
        () => verb("queues.add_member", { vhost, name, node }), `${node} becomes a member.`),
    }),
  ];
}

function number(title, field) {
  return { title, number: true, cell: (row) => format.count(row[field] < 0 ? NaN : row[field]) };
}
