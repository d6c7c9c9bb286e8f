// Keys: `g` and a letter for a page, `/` for the filter, and so on; never while something is typed.

import { h } from "./dom.js";
import { note } from "./dialogs.js";
import { PAGES } from "./routes.js";
import { turnTheme } from "./theme.js";

const TYPED_IN = "input, textarea, select, dialog";
let isGoing = false;

export function listenForShortcuts(router) {
  const keys = {
    "/": () => document.querySelector("#main input[type=search]")?.focus(),
    "?": help,
    r: () => router.refresh(),
    t: turnTheme,
    g: () => (isGoing = true),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !router.page) return;
    if (event.target.closest(TYPED_IN)) return;
    const page = isGoing && PAGES.find(([, , key]) => key === event.key);
    isGoing = false;
    if (page) router.go(page[0]);
    else if (Object.hasOwn(keys, event.key)) keys[event.key]();
    else return;
    event.preventDefault();
  });
}

export function help() {
  const rows = [
    ...PAGES.map(([, title, key]) => [`g ${key}`, title]),
    ["/", "Filter the list"], ["r", "Refresh now"], ["t", "Dark or light"], ["?", "This list"],
  ];
  note("Keys", h("dl", { class: "facts" }, rows.map(([key, title]) =>
    h("div", null, h("dt", null, h("kbd", null, key)), h("dd", null, title)))));
}
