// The start: who has not logged in does that first; then whatever page the address names.

import { get, getOr, session } from "./lib/api.js";
import { show } from "./lib/dom.js";
import { Router } from "./lib/router.js";
import { applyTheme } from "./lib/theme.js";
import { listenForShortcuts } from "./lib/shortcuts.js";
import { header, navigation } from "./lib/shell.js";
import { login } from "./views/login.js";

const main = document.getElementById("main");
const router = new Router(main, leave);

applyTheme();
listenForShortcuts(router);
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault(); // what stands behind the `#` names a page
  main.focus();
};
addEventListener("hashchange", () => session.isOpen && router.open());
await begin();

async function begin() {
  if (!session.isOpen) return enter();
  try {
    const who = await get("whoami");
    const vhosts = await getOr([], "vhosts", { columns: "name" });
    const overview = await getOr({}, "overview", { columns: "cluster_name,product_version,node" });
    router.who = who;
    router.vhosts = vhosts.map((vhost) => vhost.name);
    router.overview = overview;
    header(router, leave);
    navigation(router);
    router.open();
  } catch (error) {
    leave(error.status === 401 ? "Your login is not valid any more." : error.message);
  }
}

function enter(why) {
  show(main, login(begin, why));
  document.getElementById("name").focus();
}

function leave(why) {
  router.close();
  session.close();
  for (const id of ["header", "nav"]) show(document.getElementById(id));
  enter(why);
}
