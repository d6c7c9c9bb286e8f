// Numbers, sizes and times, as people read them.

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const NOTHING = "–";

export function count(value) {
  return Number.isFinite(value) ? COUNT.format(value) : NOTHING;
}

export function short(value) {
  return Number.isFinite(value) ? SHORT.format(value) : NOTHING;
}

export function rate(value) {
  if (!Number.isFinite(value)) return NOTHING;
  return `${value >= 100 || value === 0 ? SHORT.format(value) : value.toFixed(1)}/s`;
}

export function bytes(value) {
  if (!Number.isFinite(value)) return NOTHING;
  let power = 0;
  while (value >= 1024 && power < UNITS.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${power && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[power]}`;
}

export function duration(ms) {
  if (!Number.isFinite(ms)) return NOTHING;
  const s = Math.floor(ms / 1000);
  if (s < 1) return `${Math.round(ms)} ms`;
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function moment(ms) {
  return Number.isFinite(ms) ? new Date(ms).toLocaleString() : NOTHING;
}

/** Any value of JSON in a line. */
export function value(it) {
  return typeof it === "string" ? it : JSON.stringify(it);
}

/** `a=1, b=2`. */
export function pairs(object) {
  return Object.entries(object ?? {}).map(([name, it]) => `${name}=${value(it)}`).join(", ");
}
