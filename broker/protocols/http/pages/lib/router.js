// Which page is shown: it is loaded, drawn, and loaded again every few seconds while it is looked at.
//
// A page is `{title, load, view}`: `load` asks the broker, `view` makes elements of what it has
// said.  What a page remembers between two drawings are variables of the function that makes it.

import { get } from "./api.js";
import { h, show } from "./dom.js";
import { confirmed } from "./dialogs.js";
import { to } from "./links.js";
import { failed, silence, succeeded } from "./notices.js";
import { makerOf } from "./routes.js";
import { markCurrent } from "./shell.js";

const EVERY_MS = 5000;
const VHOST = "vhost";

export class Router {
  constructor(main, onUnauthorized) {
    this.main = main;
    this.onUnauthorized = onUnauthorized;
    this.timer = undefined;
    this.opened = 0; // which visit this is: answers to earlier ones are dropped
    document.addEventListener("visibilitychange", () => this.page && this.refresh());
  }

  /** Show the page that the address names. */
  open() {
    const [fragment, search] = location.hash.replace(/^#\/?/, "").split("?");
    const [name, ...params] = fragment.split("/").map(decodeURIComponent);
    this.name = name || "overview";
    this.params = params;
    this.query = Object.fromEntries(new URLSearchParams(search));
    this.opened += 1;
    this.page = makerOf(this.name)(this);
    this.data = undefined;
    silence();
    document.title = `${this.page.title} – fluffle`;
    markCurrent(this.name);
    this.main.dataset.page = this.name;
    this.main.setAttribute("aria-busy", "true");
    this.refresh();
  }

  close() {
    this.opened += 1;
    this.page = undefined;
    clearTimeout(this.timer);
  }

  /** Another page; the same with another query does not move the focus. */
  go(...where) {
    location.hash = to(...where);
  }

  /** This page with something else behind the `?`. */
  ask(query) {
    this.go(this.name, ...this.params, { ...this.query, ...query });
  }

  async refresh() {
    clearTimeout(this.timer);
    const { opened, page } = this;
    try {
      const data = await page.load();
      if (opened !== this.opened) return;
      this.data = data;
      this.draw();
      if (this.isStale) silence();
      this.isStale = false;
    } catch (error) {
      if (opened !== this.opened) return;
      if (error.status === 401 && (await this.isLoggedOut())) return;
      this.isStale = true;
      failed(error);
      if (this.data === undefined) show(this.main, h("h1", null, page.title), h("p", null, error.message));
    }
    this.main.removeAttribute("aria-busy");
    this.main.dataset.drawn = Number(this.main.dataset.drawn ?? 0) + 1;
    clearTimeout(this.timer);
    if (!document.hidden) this.timer = setTimeout(() => this.refresh(), EVERY_MS);
  }

  /** Make the elements anew of what was loaded last. */
  draw() {
    if (this.data !== undefined) show(this.main, this.page.view(this.data));
  }

  async isLoggedOut() {
    try {
      await get("whoami");
      return false;
    } catch (error) {
      if (error.status === 401) this.onUnauthorized("Your login is not valid any more.");
      return error.status === 401;
    }
  }

  /** Do something and say so; whether it was done. */
  async act(does, done) {
    try {
      const text = await does();
      if (text === false) return false;
      succeeded(typeof text === "string" ? text : done);
      await this.refresh();
      return true;
    } catch (error) {
      failed(error);
      return false;
    }
  }

  /** The same, for what cannot be undone. */
  async destroy(question, yes, does, done) {
    return (await confirmed(question, yes)) && this.act(does, done);
  }

  /** The virtual host that lists are narrowed to; empty for all. */
  get vhost() {
    const chosen = sessionStorage.getItem(VHOST) ?? "";
    return this.vhosts.includes(chosen) ? chosen : "";
  }

  set vhost(name) {
    sessionStorage.setItem(VHOST, name);
  }

  /** As segments behind the name of a list. */
  get inVhost() {
    return this.vhost ? [this.vhost] : [];
  }

  is(...tags) {
    return this.who.tags.some((tag) => tag === "administrator" || tags.includes(tag));
  }
}
