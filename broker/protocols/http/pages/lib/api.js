// Requests to the broker, by who has logged in.  The header is kept for this tab and no longer.

const KEY = "authorization";
const ANSWER_WITHIN_MS = 60_000;

/** What the API has refused, in its words. */
export class ApiError extends Error {
  constructor(status, answer) {
    super(answer?.reason ?? answer?.error?.text ?? answer?.error ?? `the broker answers ${status}`);
    this.status = status;
  }
}

export const session = {
  get isOpen() {
    return sessionStorage.getItem(KEY) !== null;
  },
  open(name, password) {
    const bytes = new TextEncoder().encode(`${name}:${password}`);
    sessionStorage.setItem(KEY, `Basic ${btoa(String.fromCharCode(...bytes))}`);
  },
  close() {
    sessionStorage.clear();
  },
};

/** A path below `/api/`, each segment encoded; a last object is what stands behind the `?`. */
export function path(...segments) {
  const last = segments.at(-1);
  const query = typeof last === "object" ? segments.pop() : {};
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const encoded = segments.map(encodeURIComponent).join("/");
  return given.length ? `${encoded}?${new URLSearchParams(given)}` : encoded;
}

/** What the API answers; null where it says nothing.  ApiError. */
export async function ask(method, where, body) {
  const headers = { authorization: sessionStorage.getItem(KEY) ?? "" };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(`api/${where}`, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "omit", // else the browser asks for a password by itself
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
  } catch {
    throw new ApiError(0, { reason: "the broker does not answer" });
  }
  const text = await response.text();
  const answer = text && response.headers.get("content-type")?.startsWith("application/json")
    ? JSON.parse(text)
    : null;
  if (!response.ok) throw new ApiError(response.status, answer);
  return answer;
}

export const get = (...segments) => ask("GET", path(...segments));

/** The same; `otherwise` where it is not there, or not for who asks. */
export async function getOr(otherwise, ...segments) {
  try {
    return await get(...segments);
  } catch (error) {
    if (![401, 403, 404, 405].includes(error.status)) throw error;
    return otherwise;
  }
}

/** What a verb of the control socket says, for administrators: its result or its rows. */
export async function verb(name, args = {}) {
  const answer = await ask("POST", path("fluffle", "verbs", name), args);
  return answer.rows ?? answer.result;
}
