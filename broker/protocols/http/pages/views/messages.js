// What lies in a queue: looked at without touching it, moved, or sent back where it has died.

import { ask, path } from "../lib/api.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { form } from "../lib/forms.js";
import { link } from "../lib/links.js";
import { facts, fold, panel, table } from "../lib/tables.js";

const SEEN_AT_ONCE = 20;
const MOVED_AT_ONCE = 1000;

/** The parts of a page on a queue that are about its messages. */
export function messages(page, vhost, name) {
  let seen = null;
  let offset = 0;
  const on = (what) => path("fluffle", "queues", vhost, name, what);

  async function peek(from) {
    await page.act(async () => {
      offset = Math.max(0, from);
      seen = await ask("POST", on("peek"), { offset, count: SEEN_AT_ONCE, body_bytes: 4096 });
      page.draw();
      return seen.length ? "They are as they were: nobody has taken them." : "There is nothing ready there.";
    });
  }

  async function move({ to, routing_key, header, limit }) {
    let moved = 0;
    return page.act(async () => {
      for (let left = limit ?? Infinity; left > 0;) {
        const some = await ask("POST", on("move"), {
          to, limit: Math.min(left, MOVED_AT_ONCE),
          ...(routing_key && { routing_key }), ...(header && { where: [header] }),
        });
        moved += some.moved;
        left -= some.moved;
        if (some.moved < MOVED_AT_ONCE) break;
      }
      return `${format.count(moved)} moved to “${to}”.`;
    });
  }

  const redrive = () => page.destroy(
    "Send dead letters back to the queues in which they died first?", "Send back", async () => {
      const { moved, queues } = await ask("POST", on("redrive"), {});
      return moved ? `${format.count(moved)} sent back: ${format.pairs(queues)}.` : "There are no dead letters of queues that there are.";
    });

  return () => [
    panel("Messages", h("p", { class: "buttons" },
      h("button", { id: "peek", onclick: () => peek(0) }, "Look at the first"),
      seen && offset > 0 && h("button", { onclick: () => peek(offset - SEEN_AT_ONCE) }, "Those before"),
      seen?.length === SEEN_AT_ONCE && h("button", { onclick: () => peek(offset + SEEN_AT_ONCE) }, "Those behind")),
    seen && h("ol", { class: "messages", start: offset + 1 }, seen.map((each) => message(vhost, each)))),
    fold("Move messages", form({
      key: "move", submit: "Move",
      fields: [
        { name: "to", label: "To the queue", required: true },
        { name: "limit", label: "How many", type: "number", hint: "empty for all" },
        { name: "routing_key", label: "Only with routing key", hint: "as in a binding of a topic exchange" },
        { name: "header", label: "Only with header", placeholder: "name=value" },
      ],
      act: move,
    }), h("h3", null, "Dead letters"), h("p", { class: "muted" }, "By their header x-first-death-queue."),
    h("button", { id: "redrive", onclick: redrive }, "Send dead letters back")),
  ];
}

function message(vhost, { position, exchange, routing_key, redelivered, delivery_count, expires_at_ms, headers, properties, payload, payload_encoding, payload_bytes }) {
  return h("li", { "data-key": position },
    facts([
      ["Exchange", exchange || "(default)"], ["Routing key", routing_key],
      ["Redelivered", redelivered && `yes, failed ${delivery_count} times`],
      ["Expires", expires_at_ms && format.moment(expires_at_ms)],
      ["Headers", format.pairs(headers)], ["Properties", format.pairs(properties)],
      ["Payload", `${format.bytes(payload_bytes)}${payload_encoding === "base64" ? ", in base64" : ""}`],
      ["Explain", link("why it is here", "explain", { vhost, exchange, key: routing_key })],
    ]),
    h("pre", null, payload));
}

/** Who has messages of the queue in hands. */
export function holders(rows) {
  return table({
    label: "Unacknowledged messages", rows, empty: "Nobody has messages in hands.",
    key: (row) => `${row.channel} ${row.delivery_tag}`,
    columns: [
      { title: "Channel", name: true, cell: (row) => link(row.channel, "channels", { name: row.connection }) },
      { title: "By", cell: ({ consumer_tag: tag }) => (tag === null ? "basic.get" : `consumer ${tag}`) },
      { title: "User", cell: ({ user }) => user },
      { title: "Node", cell: ({ node }) => node },
      { title: "Messages", number: true, cell: (row) => format.count(row.messages) },
      { title: "Routing keys", cell: ({ routing_keys }) => routing_keys.join(", ") },
      { title: "For", number: true, cell: ({ held_ms }) => (held_ms === null ? "not measured" : format.duration(held_ms)) },
    ],
  });
}
