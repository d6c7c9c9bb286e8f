// Policies and operator policies: settings for all queues and exchanges of certain names.

import { ask, getOr, path } from "../lib/api.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { form, table as lines, TABLE_HINT } from "../lib/forms.js";
import { fold, panel, table } from "../lib/tables.js";

const KINDS = [
  ["policies", "Policies", ["all", "queues", "classic_queues", "quorum_queues", "exchanges"]],
  ["operator-policies", "Operator policies", ["queues", "classic_queues", "quorum_queues"]],
];

export function policies(page) {
  return {
    title: "Policies",
    load: () => Promise.all(KINDS.map(([kind]) => getOr([], kind, ...page.inVhost))),
    view: (found) => [
      h("h1", null, "Policies"),
      KINDS.map(([kind, title, applies], index) => [
        panel(title, list(page, kind, found[index])),
        fold(`Set one of the ${title.toLowerCase()}`, setting(page, kind, applies)),
      ]),
    ],
  };
}

function list(page, kind, rows) {
  return table({
    label: kind, rows, key: ({ vhost, name }) => `${vhost}/${name}`,
    columns: [
      { title: "Name", name: true, cell: ({ name }) => name },
      { title: "Virtual host", cell: ({ vhost }) => vhost },
      { title: "Pattern", cell: ({ pattern }) => h("code", null, pattern) },
      { title: "Applies to", cell: (row) => row["apply-to"] },
      { title: "Definition", cell: ({ definition }) => format.pairs(definition) },
      { title: "Priority", number: true, cell: ({ priority }) => format.count(priority) },
      { title: "", cell: ({ vhost, name }) => h("button", {
        class: "danger",
        onclick: () => page.destroy(`Delete the policy “${name}”?`, "Delete",
          () => ask("DELETE", path(kind, vhost, name)), `“${name}” is gone.`),
      }, "Delete") },
    ],
  });
}

function setting(page, kind, applies) {
  return form({
    key: kind, submit: "Set",
    fields: [
      { name: "vhost", label: "Virtual host", type: "select", options: page.vhosts, value: page.vhost || "/" },
      { name: "name", label: "Name", required: true },
      { name: "pattern", label: "Pattern", required: true, placeholder: "^orders\\." },
      { name: "apply", label: "Applies to", type: "select", options: applies },
      { name: "priority", label: "Priority", type: "number", value: "0" },
      { name: "definition", label: "Definition", type: "textarea", hint: TABLE_HINT, placeholder: "max-length = 1000" },
    ],
    act: ({ vhost, name, pattern, apply, priority, definition }) => page.act(() =>
      ask("PUT", path(kind, vhost, name), {
        pattern, "apply-to": apply, priority: priority ?? 0, definition: lines(definition),
      }), `“${name}” is set.`),
  });
}
