// The pages by the names that stand in the address.

import { channels } from "../views/channels.js";
import { cluster } from "../views/cluster.js";
import { connections } from "../views/connections.js";
import { definitions } from "../views/definitions.js";
import { exchange } from "../views/exchange.js";
import { exchanges } from "../views/exchanges.js";
import { explain } from "../views/explain.js";
import { missing } from "../views/missing.js";
import { overview } from "../views/overview.js";
import { policies } from "../views/policies.js";
import { queue } from "../views/queue.js";
import { queues } from "../views/queues.js";
import { sessions } from "../views/sessions.js";
import { users } from "../views/users.js";
import { vhosts } from "../views/vhosts.js";

/** Those in the navigation: name, title, the key that follows `g`. */
export const PAGES = [
  ["overview", "Overview", "o"],
  ["connections", "Connections", "c"],
  ["channels", "Channels", "h"],
  ["sessions", "MQTT sessions", "m"],
  ["exchanges", "Exchanges", "e"],
  ["queues", "Queues", "q"],
  ["explain", "Explain", "x"],
  ["policies", "Policies", "p"],
  ["users", "Users", "u"],
  ["vhosts", "Virtual hosts", "v"],
  ["cluster", "Cluster", "l"],
  ["definitions", "Definitions", "d"],
];

const MAKERS = {
  channels, cluster, connections, definitions, exchange, exchanges, explain, overview, policies,
  queue, queues, sessions, users, vhosts,
};

/** What makes a page. */
export function makerOf(name) {
  return Object.hasOwn(MAKERS, name) ? MAKERS[name] : missing;
}

/** In which page of the navigation another one lies. */
export const WITHIN = { queue: "queues", exchange: "exchanges" };
