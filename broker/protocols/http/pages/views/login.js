// Who asks.

import { get, session } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { failed, silence } from "../lib/notices.js";

export function login(begin, why) {
  return h("form", {
    class: "login",
    onsubmit: async (event) => {
      event.preventDefault();
      const { name, password } = event.target.elements;
      session.open(name.value, password.value);
      try {
        await get("whoami");
        silence();
        await begin();
      } catch (error) {
        session.close();
        failed(error);
        password.select();
      }
    },
  },
  h("h1", null, h("img", { src: "icon.svg", alt: "" }), "fluffle"),
  typeof why === "string" && h("p", { class: "muted" }, why),
  h("label", { for: "name" }, "User"),
  h("input", { id: "name", name: "name", required: true, autocomplete: "username", spellcheck: "false" }),
  h("label", { for: "password" }, "Password"),
  h("input", { id: "password", name: "password", type: "password", autocomplete: "current-password" }),
  h("button", { class: "main", type: "submit" }, "Log in"));
}
