// What stands above every page.

import { h, show } from "./dom.js";
import { PAGES, WITHIN } from "./routes.js";
import { turnTheme } from "./theme.js";
import { help } from "./shortcuts.js";

const ALL = "";

export function header(router, leave) {
  const { who, overview } = router;
  show(document.getElementById("header"),
    h("a", { class: "brand", href: "#/overview" }, h("img", { src: "icon.svg", alt: "" }), "fluffle"),
    h("span", { class: "muted where" }, overview.cluster_name ?? overview.node),
    h("label", { class: "vhosts" }, h("span", null, "Virtual host"),
      h("select", {
        id: "vhost",
        "aria-label": "Virtual host", // on a phone there is no room for the label
        onchange: (event) => {
          router.vhost = event.target.value;
          router.ask({ page: "" });
          router.open();
        },
      }, ["", ...router.vhosts].map((name) =>
        h("option", { value: name, selected: name === router.vhost },
          name === ALL ? "All" : name)))),
    h("span", { class: "who muted", title: who.tags.join(", ") }, who.name),
    h("button", { class: "plain", onclick: turnTheme, "aria-label": "Dark or light" }, "◐"),
    h("button", { class: "plain", onclick: help, "aria-label": "Keys" }, "?"),
    h("button", { class: "plain", id: "logout", onclick: () => leave() }, "Log out"));
}

export function navigation(router) {
  show(document.getElementById("nav"), h("ul", null, PAGES.map(([name, title, key]) =>
    h("li", null, h("a", {
      href: `#/${name}`, "data-page": name, "aria-keyshortcuts": `g ${key}`,
      onclick: () => router.name === name && router.open(),
    }, title)))));
}

export function markCurrent(name) {
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.page === (WITHIN[name] ?? name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}
