// No invoice is lost, whatever the broker does.  Run by: fluffle test-server -- npm test
import assert from "node:assert/strict"
import { test } from "node:test"
import { control } from "./control.mjs"
import * as naive from "./naive.mjs"
import * as worker from "./worker.mjs"

// Runs `check` with a virtual host of its own, and a worker on it.  That of a test that fails is
// kept: `fluffle test-server --timeline` tells what happened there.
async function withWorker(startWorker, check) {
  const vhost = await control("vhosts/add")
  const act = (operation, args) => control(`vhosts/${vhost.name}/${operation}`, args)
  const connection = await startWorker(vhost.url)
  try {
    await check(act)
  } finally {
    await connection.close()
  }
  await control("vhosts/delete", { name: vhost.name })
}

async function eachOrderHasAnInvoice(act) {
  await act("publishes/nack_next", { queue: "invoices" })
  for (const number of [1, 2, 3]) {
    await act("publish", { routing_key: "orders", body: JSON.stringify({ number, pieces: 2 }) })
  }
  await act("expect", { queue: "invoices", count: 3 })
  await act("expect", { queue: "orders", count: 0 })
  const { messages } = await act("messages", { queue: "invoices" })
  const numbers = messages.map((invoice) => JSON.parse(invoice.body).number)
  assert.deepEqual(numbers.sort(), [1, 2, 3])
}

test("no invoice is lost when the broker refuses one", () =>
  withWorker(worker.startWorker, eachOrderHasAnInvoice))

test("the naive worker loses one, and is caught", () =>
  assert.rejects(withWorker(naive.startWorker, eachOrderHasAnInvoice), /it has 2 messages/))

test("orders wait while the worker's connection is broken", () =>
  withWorker(worker.startWorker, async (act) => {
    const { connections } = await act("connections/list")
    await act("connections/freeze", { connection: connections[0].name })
    await act("publish", { routing_key: "orders", body: JSON.stringify({ number: 1, pieces: 1 }) })
    await act("expect", { queue: "orders", unacked: 1 })
    await act("connections/thaw", { connection: connections[0].name })
    await act("expect", { queue: "invoices", count: 1 })
  }))
