// A drawing of exchanges and queues: what leads where, from the left to the right.
//
// An exchange stands one column behind the last that leads to it; queues stand in the last column.
// Within a column each is put beside what leads to it, so that lines cross seldom.

import { h, svg } from "./dom.js";
import { exchangeName, to } from "./links.js";

const DRAWN_MAX = 150;
const BOX = { width: 180, height: 28, gapX: 110, gapY: 12 };

/** `bindings` as the API lists them. */
export function drawing(bindings) {
  if (!bindings.length) return h("p", { class: "muted" }, "There are no bindings but those of the default exchange.");
  const drawn = bindings.slice(0, DRAWN_MAX);
  const nodes = nodesOf(drawn);
  place([...nodes.values()], drawn);
  const every = [...nodes.values()];
  const width = Math.max(...every.map(({ x }) => x)) + BOX.width + 2;
  const height = Math.max(...every.map(({ y }) => y)) + BOX.height + 2;
  return [
    drawn.length < bindings.length &&
      h("p", { class: "muted" }, `The first ${DRAWN_MAX} of ${bindings.length} bindings; choose a virtual host to see others.`),
    h("div", { class: "scroll", role: "region", "aria-label": "Drawing of the bindings", tabindex: "0" },
      svg("svg", { class: "topology", width, height, viewBox: `-1 -1 ${width + 1} ${height + 1}` },
        drawn.map((binding) => edge(nodes.get(sourceKey(binding)), nodes.get(destinationKey(binding)), binding)),
        every.map(box))),
  ];
}

const keyOf = (kind, vhost, name) => JSON.stringify([kind, vhost, name]);
const sourceKey = ({ vhost, source }) => keyOf("exchange", vhost, source);
const destinationKey = ({ vhost, destination, destination_type: kind }) => keyOf(kind, vhost, destination);

function nodesOf(bindings) {
  const nodes = new Map();
  const add = (key, kind, vhost, name) => nodes.has(key) || nodes.set(key, { key, kind, vhost, name, column: 0 });
  for (const binding of bindings) {
    add(sourceKey(binding), "exchange", binding.vhost, binding.source);
    add(destinationKey(binding), binding.destination_type, binding.vhost, binding.destination);
  }
  // As often as there are nodes at most: bindings may go round.
  for (let round = 0, moved = true; moved && round < nodes.size; round += 1) {
    moved = false;
    for (const binding of bindings) {
      const from = nodes.get(sourceKey(binding));
      const onto = nodes.get(destinationKey(binding));
      if (onto.kind === "exchange" && onto.column <= from.column && from.column < 4) {
        onto.column = from.column + 1;
        moved = true;
      }
    }
  }
  const last = 1 + Math.max(...[...nodes.values()].map(({ column }) => column));
  for (const node of nodes.values()) if (node.kind === "queue") node.column = last;
  return nodes;
}

function place(nodes, bindings) {
  const columns = Map.groupBy(nodes, ({ column }) => column);
  const byKey = new Map(nodes.map((node) => [node.key, node]));
  for (const [column, members] of [...columns].sort(([a], [b]) => a - b)) {
    for (const node of members) {
      const rows = bindings
        .filter((binding) => destinationKey(binding) === node.key)
        .map((binding) => byKey.get(sourceKey(binding)).y ?? 0);
      node.beside = rows.length ? rows.reduce((sum, y) => sum + y, 0) / rows.length : 0;
    }
    members.sort((a, b) => a.beside - b.beside || a.name.localeCompare(b.name));
    members.forEach((node, row) => {
      node.x = column * (BOX.width + BOX.gapX);
      node.y = row * (BOX.height + BOX.gapY);
    });
  }
}

function box({ kind, vhost, name, x, y }) {
  const text = exchangeName(name);
  return svg("a", { href: to(kind, vhost, name), class: `box ${kind}` },
    svg("title", null, `${kind} ${text} in ${vhost}`),
    svg("rect", { x, y, width: BOX.width, height: BOX.height, rx: kind === "queue" ? 4 : BOX.height / 2 }),
    svg("text", { x: x + 12, y: y + BOX.height / 2 + 4 }, text.length > 22 ? `${text.slice(0, 21)}…` : text));
}

function edge(from, onto, { routing_key: key }) {
  const [x1, y1] = [from.x + BOX.width, from.y + BOX.height / 2];
  const [x2, y2] = [onto.x, onto.y + BOX.height / 2];
  const bend = Math.max(30, Math.abs(x2 - x1) / 2);
  const [x, y] = [along(x1, x1 + bend, x2 - bend, x2), along(y1, y1, y2, y2)];
  const label = key.length > 16 ? `${key.slice(0, 15)}…` : key;
  return svg("g", { class: "edge" },
    svg("title", null, `${from.name} → ${onto.name} by “${key}”`),
    svg("path", { d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}` }),
    svg("text", { x, y: y - 3, "text-anchor": "middle" }, label));
}

/** A coordinate of a Bézier curve, nearer to its end, where few lines are close to each other. */
function along(a, b, c, d, t = 0.62) {
  const s = 1 - t;
  return s ** 3 * a + 3 * s * s * t * b + 3 * s * t * t * c + t ** 3 * d;
}
