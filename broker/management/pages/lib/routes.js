// The pages by the names that stand in the address.

import { overview } from "../views/overview.js";
import { queues } from "../views/queues.js";
import { queue } from "../views/queue.js";
import { missing } from "../views/missing.js";

/** Those in the navigation: name, title, the key that follows `g`. */
export const PAGES = [
  ["overview", "Overview", "o"],
  ["queues", "Queues", "q"],
];

const MAKERS = { overview, queues, queue };

/** What makes a page. */
export function makerOf(name) {
  return Object.hasOwn(MAKERS, name) ? MAKERS[name] : missing;
}

/** In which page of the navigation another one lies. */
export const WITHIN = { queue: "queues", exchange: "exchanges" };
