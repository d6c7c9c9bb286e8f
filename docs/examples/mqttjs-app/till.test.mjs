// Nobody pays twice.  Run by: fluffle test-server -- npm test
import assert from "node:assert/strict"
import { test } from "node:test"
import { control } from "./control.mjs"
import * as naive from "./naive.mjs"
import * as till from "./till.mjs"

// Runs `check` with a virtual host of its own, and a till on it.  That of a test that fails is
// kept: `fluffle test-server --timeline` tells what happened there.
async function withTill(startTill, check) {
  const vhost = await control("vhosts/add")
  const act = (operation, args) => control(`vhosts/${vhost.name}/${operation}`, args)
  const charged = []
  const client = await startTill(vhost.mqtt_url, (payment) => charged.push(payment.number))
  try {
    await check(act, charged)
  } finally {
    await client.endAsync(true)
  }
  await control("vhosts/delete", { name: vhost.name })
}

async function pay(act, number) {
  const payment = { exchange: "amq.topic", routing_key: "payments", body: JSON.stringify({ number }) }
  await act("publish", payment)
}

async function eachPaymentIsChargedOnce(act, charged) {
  await act("packets/duplicate_next", { client: "till" })
  await pay(act, 1)
  const came = { packet: "PUBLISH", sent_by: "broker", client: "till", count: 2, within: 30 }
  const { packets } = await act("packets/expect", came)
  assert.deepEqual(packets.map((packet) => packet.dup), [false, true])
  await pay(act, 2)
  await act("packets/expect", { packet: "PUBACK", client: "till", count: 2, within: 30 })
  assert.deepEqual(charged, [1, 2])
}

test("a payment that comes again is not charged again", () =>
  withTill(till.startTill, eachPaymentIsChargedOnce))

test("the naive till charges it twice, and is caught", () =>
  assert.rejects(withTill(naive.startTill, eachPaymentIsChargedOnce), { actual: [1, 1, 2] }))

test("payments wait while the till is cut off", () =>
  withTill(till.startTill, async (act, charged) => {
    await act("connections/refuse")
    await act("connections/reset", { connection: "till" })
    await pay(act, 1)
    assert.deepEqual(charged, [])
    await act("connections/accept")
    await act("packets/expect", { packet: "PUBACK", client: "till", within: 30 })
    assert.deepEqual(charged, [1])
  }))
