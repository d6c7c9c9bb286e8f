// Charges customers for what comes in `payments`: each payment once, however often it comes.
import mqtt from "mqtt"

const SESSION_S = 3600

export async function startTill(url, charge) {
  // an application with a database keeps them there, in the transaction that does the work
  const done = new Set()
  return connect(url, (payment) => {
    if (done.has(payment.number)) return // it has come before: PUBACK was lost
    done.add(payment.number)
    charge(payment)
  })
}

export async function connect(url, take) {
  const client = mqtt.connect(url, {
    clientId: "till",
    protocolVersion: 5,
    clean: false,
    properties: { sessionExpiryInterval: SESSION_S },
    reconnectPeriod: 10,
  })
  client.on("message", (_topic, payload) => take(JSON.parse(payload)))
  client.on("error", () => {}) // it connects again by itself
  await client.subscribeAsync("payments", { qos: 1 })
  return client
}
