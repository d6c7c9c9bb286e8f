// The channels of connections, and what is under way on them.

import * as format from "../lib/format.js";
import { listing } from "../lib/listing.js";
import { badge, state } from "../lib/tables.js";

const FIELDS = [
  "name", "user", "vhost", "state", "node", "confirm", "transactional", "prefetch_count", "global_prefetch_count",
  "consumer_count", "messages_unacknowledged", "messages_unconfirmed", "messages_uncommitted",
  "message_stats.publish_details.rate", "message_stats.deliver_get_details.rate", "message_stats.ack_details.rate",
];

export function channels(page) {
  const columns = [
    { title: "Name", sort: "name", name: true, cell: ({ name }) => name },
    { title: "User", sort: "user", cell: ({ user }) => user },
    { title: "Virtual host", sort: "vhost", cell: ({ vhost }) => vhost },
    { title: "Mode", cell: ({ confirm, transactional }) => [confirm && badge("confirm"), transactional && badge("tx")] },
    { title: "State", sort: "state", cell: (row) => state(row.state ?? "running") },
    count("Consumers", "consumer_count"), count("Prefetch", "prefetch_count"),
    count("Unacked", "messages_unacknowledged"), count("Unconfirmed", "messages_unconfirmed"),
    flow("In", "publish_details"), flow("Out", "deliver_get_details"), flow("Acked", "ack_details"),
  ];
  const where = page.vhost ? ["vhosts", page.vhost, "channels"] : ["channels"];
  return listing(page, {
    title: "Channels", where, columns, fields: FIELDS, key: ({ name }) => name, empty: "There are no channels.",
  });
}

function count(title, field) {
  return { title, sort: field, number: true, cell: (row) => format.count(row[field]) };
}

function flow(title, field) {
  return {
    title, sort: `message_stats.${field}.rate`, number: true,
    cell: ({ message_stats }) => format.rate(message_stats?.[field]?.rate ?? 0),
  };
}
