// Elements, and how a page becomes the next one without losing focus, scrolling or what is typed.
//
// A view makes all of its elements anew each time.  `morph` changes those that are there into them:
// an element stays the same one as long as its tag and its `data-key` do.  Text is only ever put
// into text nodes, so that nothing that a client of the broker has named can become markup.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "onsubmit", "oninput", "onchange", "onkeydown"];
const OPENED_BY_USER = new Set(["DETAILS", "DIALOG"]);

/** An element; `props` are attributes, and handlers by names like `onclick`. */
export function h(tag, props, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** An element of a drawing. */
export function svg(tag, props, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name.startsWith("on")) element[name] = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child != null && child !== false && child !== "")
    .map((child) => (child instanceof Node ? child : document.createTextNode(child)));
}

/** Have an element show these children instead of those it has. */
export function show(parent, ...children) {
  const focused = document.activeElement;
  morph(parent, nodes(children));
  if (focused !== document.activeElement && focused?.isConnected) {
    focused.focus({ preventScroll: true });
  }
}

function morph(parent, wanted) {
  const byKey = new Map();
  for (const child of parent.children) if (keyOf(child)) byKey.set(keyOf(child), child);
  let at = parent.firstChild;
  for (const node of wanted) {
    const old = keyOf(node) ? byKey.get(keyOf(node)) : at;
    if (!old || !isSame(old, node)) {
      parent.insertBefore(node, at);
      continue;
    }
    if (old === at) at = at.nextSibling;
    else parent.insertBefore(old, at);
    become(old, node);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function keyOf(node) {
  return node.dataset?.key;
}

function isSame(old, node) {
  return old.nodeName === node.nodeName && keyOf(old) === keyOf(node);
}

function become(old, node) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  const isUsers = (name) => name === "open" && OPENED_BY_USER.has(old.nodeName);
  for (const { name } of [...old.attributes]) {
    if (!node.hasAttribute(name) && !isUsers(name)) old.removeAttribute(name);
  }
  for (const { name, value } of node.attributes) {
    if (old.getAttribute(name) !== value && !isUsers(name)) old.setAttribute(name, value);
  }
  for (const name of HANDLERS) if (old[name] !== node[name]) old[name] = node[name];
  if (old.nodeName !== "TEXTAREA") morph(old, [...node.childNodes]);
}
