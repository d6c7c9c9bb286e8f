// Users, and what they may do in which virtual host.

import { ask, getOr, path } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { form } from "../lib/forms.js";
import { badge, fold, panel, table } from "../lib/tables.js";

const TAGS_HINT = "administrator, monitoring, policymaker, management; separated by commas";

export function users(page) {
  return {
    title: "Users",
    async load() {
      const [every, permissions, topics] = await Promise.all([
        getOr([], "users"), getOr([], "permissions"), getOr([], "topic-permissions"),
      ]);
      return { every, permissions, topics };
    },
    view: ({ every, permissions, topics }) => [
      h("h1", null, "Users"),
      panel("Users", list(page, every, permissions)),
      fold("Add or change a user", form({
        key: "user", submit: "Set",
        fields: [
          { name: "name", label: "Name", required: true },
          { name: "password", label: "Password", type: "password", required: true },
          { name: "tags", label: "Tags", hint: TAGS_HINT },
        ],
        act: ({ name, ...rest }) => page.act(() => ask("PUT", path("users", name), rest), `“${name}” is set.`),
      })),
      panel("Permissions", rights(page, permissions)),
      fold("Give permissions", giving(page, every)),
      panel("Topic permissions", topicRights(page, topics)),
    ],
  };
}

function list(page, rows, permissions) {
  return table({
    label: "Users", rows, key: ({ name }) => name, empty: "Only administrators see users.",
    columns: [
      { title: "Name", name: true, cell: ({ name }) => name },
      { title: "Tags", cell: ({ tags }) => [tags].flat().map((tag) => badge(tag)) },
      { title: "Virtual hosts", cell: ({ name }) =>
        permissions.filter(({ user }) => user === name).map(({ vhost }) => vhost).join(", ") || "none" },
      { title: "Password", cell: ({ password_hash: hash }) => (hash ? "yes" : "none") },
      { title: "", cell: ({ name }) => remove(page, `Delete the user “${name}”?`, "Delete", "users", name) },
    ],
  });
}

function remove(page, question, yes, ...where) {
  return h("button", {
    class: "danger", onclick: () => page.destroy(question, yes, () => ask("DELETE", path(...where)), "Done."),
  }, yes);
}

function rights(page, rows) {
  return table({
    label: "Permissions", rows, key: ({ user, vhost }) => `${user} ${vhost}`,
    columns: [
      { title: "User", name: true, cell: ({ user }) => user },
      { title: "Virtual host", cell: ({ vhost }) => vhost },
      ...["configure", "write", "read"].map((right) => ({
        title: right, cell: (row) => h("code", null, row[right]),
      })),
      { title: "", cell: ({ user, vhost }) =>
        remove(page, `Take all permissions in “${vhost}” from “${user}”?`, "Take away", "permissions", vhost, user) },
    ],
  });
}

function topicRights(page, rows) {
  return table({
    label: "Topic permissions", rows, key: ({ user, vhost, exchange }) => `${user} ${vhost} ${exchange}`,
    columns: [
      { title: "User", name: true, cell: ({ user }) => user },
      { title: "Virtual host", cell: ({ vhost }) => vhost },
      { title: "Exchange", cell: ({ exchange }) => exchange || "(default)" },
      { title: "write", cell: ({ write }) => h("code", null, write) },
      { title: "read", cell: ({ read }) => h("code", null, read) },
    ],
  });
}

function giving(page, every) {
  const names = every.map(({ name }) => name);
  return form({
    key: "permission", submit: "Give",
    fields: [
      { name: "user", label: "User", type: "select", options: names },
      { name: "vhost", label: "Virtual host", type: "select", options: page.vhosts },
      ...["configure", "write", "read"].map((name) => ({ name, label: name, value: ".*" })),
    ],
    act: ({ user, vhost, ...rest }) => page.act(
      () => ask("PUT", path("permissions", vhost, user), rest), `“${user}” has permissions in “${vhost}”.`),
  });
}
