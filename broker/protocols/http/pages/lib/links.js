// Links between the pages, and what is linked most.

import { h } from "./dom.js";

/** The fragment of a page; a last object is what stands behind the `?`. */
export function to(...segments) {
  const last = segments.at(-1);
  const query = typeof last === "object" ? segments.pop() : {};
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const encoded = segments.map(encodeURIComponent).join("/");
  return `#/${encoded}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

export const link = (text, ...where) => h("a", { href: to(...where) }, text);
export const queueLink = (vhost, name) => link(name, "queue", vhost, name);
export const exchangeName = (name) => name || "(default)";
export const exchangeLink = (vhost, name) =>
  link(exchangeName(name), "exchange", vhost, name || "amq.default");
