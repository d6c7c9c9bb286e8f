// Virtual hosts, and how much may be in them; how much users may have.

import { ask, get, getOr, path } from "../lib/api.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { form } from "../lib/forms.js";
import { badge, fold, panel, table } from "../lib/tables.js";

const OF_VHOSTS = ["max-connections", "max-queues"];
const OF_USERS = ["max-connections", "max-channels"];

export function vhosts(page) {
  return {
    title: "Virtual hosts",
    async load() {
      const [every, limits, userLimits] = await Promise.all([
        get("vhosts"), getOr([], "vhost-limits"), getOr([], "user-limits"),
      ]);
      page.vhosts = every.map(({ name }) => name);
      return { every, limits, userLimits };
    },
    view: ({ every, limits, userLimits }) => [
      h("h1", null, "Virtual hosts"),
      panel("Virtual hosts", list(page, every)),
      fold("Add a virtual host", form({
        key: "vhost", submit: "Add",
        fields: [
          { name: "name", label: "Name", required: true },
          { name: "description", label: "Description" },
          { name: "default_queue_type", label: "Default queue type", type: "select", options: ["classic", "quorum"] },
        ],
        act: ({ name, ...rest }) => page.act(() => ask("PUT", path("vhosts", name), rest), `“${name}” is there.`),
      })),
      panel("Limits of virtual hosts", limitTable(page, "vhost-limits", "vhost", limits)),
      fold("Limit a virtual host", limiting(page, "vhost-limits", page.vhosts, OF_VHOSTS)),
      panel("Limits of users", limitTable(page, "user-limits", "user", userLimits)),
      fold("Limit a user", limiting(page, "user-limits", null, OF_USERS)),
    ],
  };
}

function list(page, rows) {
  return table({
    label: "Virtual hosts", rows, key: ({ name }) => name,
    columns: [
      { title: "Name", name: true, cell: ({ name }) => name },
      { title: "Description", cell: ({ description }) => description },
      { title: "Tags", cell: ({ tags }) => (tags ?? []).map((tag) => badge(tag)) },
      { title: "Default type", cell: ({ default_queue_type: type }) => type },
      { title: "Ready", number: true, cell: (row) => format.count(row.messages_ready) },
      { title: "Unacked", number: true, cell: (row) => format.count(row.messages_unacknowledged) },
      { title: "Protected", cell: (row) => (row.protected_from_deletion ? "yes" : "no") },
      { title: "", cell: ({ name }) => h("button", {
        class: "danger",
        onclick: () => page.destroy(`Delete “${name}” with all queues and messages in it?`, "Delete",
          () => ask("DELETE", path("vhosts", name)), `“${name}” is gone.`),
      }, "Delete") },
    ],
  });
}

function limitTable(page, kind, of, rows) {
  const every = rows.flatMap((row) => Object.entries(row.value).map(([limit, value]) => ({ of: row[of], limit, value })));
  return table({
    label: kind, rows: every, key: (row) => `${row.of} ${row.limit}`,
    columns: [
      { title: "Of", name: true, cell: (row) => row.of },
      { title: "Limit", cell: ({ limit }) => limit },
      { title: "At most", number: true, cell: ({ value }) => format.count(value) },
      { title: "", cell: (row) => h("button", {
        onclick: () => page.act(() => ask("DELETE", path(kind, row.of, row.limit)), "The limit is lifted."),
      }, "Lift") },
    ],
  });
}

function limiting(page, kind, names, limits) {
  return form({
    key: kind, submit: "Set",
    fields: [
      names ? { name: "of", label: "Of", type: "select", options: names } : { name: "of", label: "User", required: true },
      { name: "limit", label: "Limit", type: "select", options: limits },
      { name: "value", label: "At most", type: "number", required: true },
    ],
    act: ({ of, limit, value }) => page.act(
      () => ask("PUT", path(kind, of, limit), { value }), `${limit} of “${of}” is ${value}.`),
  });
}
