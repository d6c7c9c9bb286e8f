// The queues, page by page: the broker orders and filters them.

import { ask, path } from "../lib/api.js";
import { h } from "../lib/dom.js";
import * as format from "../lib/format.js";
import { form, table as lines, TABLE_HINT } from "../lib/forms.js";
import { queueLink } from "../lib/links.js";
import { listing } from "../lib/listing.js";
import { badge, fold, state } from "../lib/tables.js";

const FIELDS = [
  "name", "vhost", "type", "state", "durable", "auto_delete", "exclusive", "policy", "arguments",
  "messages", "messages_ready", "messages_unacknowledged", "consumers",
  "message_stats.publish_details.rate", "message_stats.deliver_get_details.rate",
];

export function queues(page) {
  return listing(page, {
    title: "Queues", where: ["queues", ...page.inVhost], columns: columns(page), fields: FIELDS,
    key: ({ vhost, name }) => `${vhost}/${name}`, empty: "There are no queues.",
    more: () => fold("Add a queue", declare(page)),
  });
}

function columns(page) {
  return [
    { title: "Name", sort: "name", cell: ({ vhost, name }) => queueLink(vhost, name), name: true },
    page.vhost === "" && { title: "Virtual host", sort: "vhost", cell: ({ vhost }) => vhost },
    { title: "Type", sort: "type", cell: (queue) => [badge(queue.type), features(queue)] },
    { title: "State", sort: "state", cell: (queue) => state(queue.state) },
    { title: "Ready", sort: "messages_ready", cell: (queue) => format.count(queue.messages_ready), number: true },
    { title: "Unacked", sort: "messages_unacknowledged", cell: (queue) => format.count(queue.messages_unacknowledged), number: true },
    { title: "Total", sort: "messages", cell: (queue) => format.count(queue.messages), number: true },
    { title: "Consumers", sort: "consumers", cell: (queue) => format.count(queue.consumers), number: true },
    { title: "In", sort: "message_stats.publish_details.rate", cell: (queue) => flow(queue, "publish_details"), number: true },
    { title: "Out", sort: "message_stats.deliver_get_details.rate", cell: (queue) => flow(queue, "deliver_get_details"), number: true },
  ];
}

function flow({ message_stats }, key) {
  return format.rate(message_stats?.[key]?.rate ?? 0);
}

const SHORT = {
  "x-message-ttl": "TTL", "x-expires": "Exp", "x-max-length": "Lim", "x-max-length-bytes": "Lim B",
  "x-dead-letter-exchange": "DLX", "x-dead-letter-routing-key": "DLK", "x-max-priority": "Pri",
  "x-single-active-consumer": "SAC", "x-delivery-limit": "DL", "x-overflow": "Ovfl",
};

/** In a word each, the whole on hovering. */
export function features({ durable, auto_delete, exclusive, policy, arguments: given = {} }) {
  return [
    durable === false && badge("transient"), auto_delete && badge("auto-delete"), exclusive && badge("exclusive"),
    Object.entries(given).filter(([name]) => SHORT[name]).map(([name, value]) =>
      h("span", { class: "badge", title: `${name}: ${format.value(value)}` }, SHORT[name])),
    policy && badge(policy, "policy"),
  ];
}

function declare(page) {
  return form({
    key: "declare", submit: "Add the queue",
    fields: [
      { name: "vhost", label: "Virtual host", type: "select", options: page.vhosts, value: page.vhost || "/" },
      { name: "name", label: "Name", required: true },
      { name: "type", label: "Type", type: "select", options: ["classic", "quorum"] },
      { name: "durable", label: "Durable", type: "checkbox", value: true },
      { name: "arguments", label: "Arguments", type: "textarea", hint: TABLE_HINT, placeholder: "x-max-length = 1000" },
    ],
    act: ({ vhost, name, type, durable, arguments: text }) => page.act(() =>
      ask("PUT", path("queues", vhost, name), {
        durable, arguments: { "x-queue-type": type, ...lines(text) },
      }), `Queue “${name}” is there.`),
  });
}
