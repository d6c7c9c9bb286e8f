// What numbers were: as the broker remembers them, else as they were seen here.

const KEPT = 120;
const seen = new Map();

/** Note what a number is now; all that is known of it. */
export function noted(name, value) {
  const points = seen.get(name) ?? [];
  seen.set(name, points);
  if (Number.isFinite(value)) points.push({ at: Date.now(), value });
  if (points.length > KEPT) points.shift();
  return points;
}

/** Of a length: RabbitMQ's samples, newest first, if there are any. */
export function lengths(name, value, details) {
  const points = noted(name, value ?? 0);
  const samples = details?.samples ?? [];
  return samples.length > points.length ? [...oldestFirst(samples), points.at(-1)] : points;
}

/** Of a rate: samples are counts, so that a rate is what lies between two of them. */
export function rates(name, details) {
  const points = noted(name, details?.rate ?? 0);
  const counts = oldestFirst(details?.samples ?? []);
  if (counts.length <= points.length) return points;
  const past = counts.slice(1).map(({ at, value }, index) => ({
    at, value: Math.max(0, (value - counts[index].value) / ((at - counts[index].at) / 1000)),
  }));
  return [...past, points.at(-1)];
}

function oldestFirst(samples) {
  return samples.map(({ timestamp, sample }) => ({ at: timestamp, value: sample })).reverse();
}
