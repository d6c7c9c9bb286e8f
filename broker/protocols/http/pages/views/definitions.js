// Definitions: all that was declared, as a file, there and back.

import { ask, get, path } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { form } from "../lib/forms.js";
import { panel } from "../lib/tables.js";

const ALL = "";

export function definitions(page) {
  const vhost = { name: "vhost", label: "Virtual host", type: "select", options: [[ALL, "All, and users"], ...page.vhosts] };
  const of = (name) => (name === ALL ? ["definitions"] : ["definitions", name]);
  return {
    title: "Definitions",
    load: async () => null,
    view: () => [
      h("h1", null, "Definitions"),
      panel("Export", h("p", { class: "muted" }, "Virtual hosts, users, permissions, queues, exchanges, bindings, policies: no messages."),
        form({
          key: "export", submit: "Save the file", fields: [vhost],
          act: ({ vhost: name }) => page.act(async () => save(await get(...of(name)), name), "Saved."),
        })),
      panel("Import", h("p", { class: "muted" }, "What is there already stays, if the file does not say otherwise. RabbitMQ’s files are taken, too."),
        form({
          key: "import", submit: "Import", danger: true,
          fields: [vhost, { name: "file", label: "File", type: "file", required: true }],
          act: ({ vhost: name, file }) => page.destroy(`Import ${file.name}?`, "Import",
            async () => ask("POST", path(...of(name)), JSON.parse(await file.text())), `${file.name} is imported.`),
        })),
    ],
  };
}

function save(definitions, name) {
  const url = URL.createObjectURL(new Blob([JSON.stringify(definitions, null, 2)], { type: "application/json" }));
  h("a", { href: url, download: `definitions${name === ALL ? "" : `-${encodeURIComponent(name)}`}.json` }).click();
  URL.revokeObjectURL(url);
}
