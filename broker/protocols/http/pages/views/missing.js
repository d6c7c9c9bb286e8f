// A page that there is not.

import { h } from "../lib/dom.js";
import { link } from "../lib/links.js";

export function missing() {
  return {
    title: "No such page",
    load: async () => null,
    view: () => [h("h1", null, "There is no such page"), h("p", null, link("To the overview", "overview"))],
  };
}
