// What both libraries' checks share: `node LIBRARY.mjs CHECK` runs one against AMQP_URL and prints
// what it observed as JSON; `node LIBRARY.mjs --list` prints their names.  Whatever goes wrong,
// even a promise that nobody will keep, ends with a status that is not 0.
import { randomUUID } from "node:crypto"

export const SELF_CLEANING = { "x-expires": 60_000 }

export const unique = (base) => `interop.${base}.${randomUUID()}`

export async function run(checks) {
  const [wanted] = process.argv.slice(2)
  if (wanted === "--list") {
    console.log(JSON.stringify(Object.keys(checks)))
    return
  }
  if (!Object.hasOwn(checks, wanted)) throw new Error(`no check named ${wanted}`)
  if (!process.env.AMQP_URL) throw new Error("AMQP_URL is not set")
  const observed = await checks[wanted](process.env.AMQP_URL)
  console.log(JSON.stringify({ check: wanted, observed: observed ?? null }))
}

// A promise with its handles outside, for events: `const [wait, resolve] = promise()`.
export function promise() {
  let resolve
  const wait = new Promise((done) => (resolve = done))
  return [wait, resolve]
}

// A queue between callbacks and the code that awaits what they get.
export class Inbox {
  #items = []
  #waiting = []

  put = (item) => {
    const taker = this.#waiting.shift()
    if (taker) taker(item)
    else this.#items.push(item)
  }

  async take() {
    if (this.#items.length > 0) return this.#items.shift()
    const [wait, resolve] = promise()
    this.#waiting.push(resolve)
    return wait
  }

  get size() {
    return this.#items.length
  }
}
