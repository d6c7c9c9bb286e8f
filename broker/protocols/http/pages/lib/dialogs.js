// Questions in front of everything else; the browser keeps the focus in them, and Escape says no.

import { h } from "./dom.js";

function opened(dialog) {
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
  return dialog;
}

/** Whether somebody means it. */
export function confirmed(question, yes) {
  return new Promise((resolve) => {
    const dialog = opened(
      h("dialog", { "aria-labelledby": "question" },
        h("form", { method: "dialog" },
          h("p", { id: "question" }, question),
          h("p", { class: "buttons" },
            h("button", { value: "", autofocus: true }, "Cancel"),
            h("button", { value: "yes", class: "danger" }, yes)))),
    );
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"));
  });
}

/** Something to read. */
export function note(title, ...content) {
  opened(
    h("dialog", { "aria-labelledby": "title" },
      h("h2", { id: "title" }, title),
      ...content,
      h("form", { method: "dialog", class: "buttons" }, h("button", { autofocus: true }, "Close"))),
  );
}
