// MQTT.js: the client of most programs on node and in browsers.  The URL is that of an MQTT listener.
import assert from "node:assert/strict"
import mqtt from "mqtt"
import { Inbox, promise, run, unique } from "./run.mjs"

const LOGIN = { username: "guest", password: "guest", reconnectPeriod: 0 }

// RabbitMQ takes dots for slashes.
const plain = (name) => name.replaceAll(".", "-")

const connect = (url, options = {}) => mqtt.connectAsync(url, { ...LOGIN, ...options })

function inbox(client) {
  const heard = new Inbox()
  client.on("message", (topic, payload, packet) => heard.put({ topic, text: payload.toString(), packet }))
  return heard
}

async function eachQuality(url, protocolVersion) {
  const [one, other] = [await connect(url, { protocolVersion }), await connect(url, { protocolVersion })]
  const heard = inbox(one)
  const topic = plain(unique("topic"))
  const [granted] = await one.subscribeAsync(`${topic}/#`, { qos: 2 })
  assert.equal(granted.qos, 2)
  for (const qos of [0, 1, 2]) {
    await other.publishAsync(`${topic}/${qos}`, `hello ${qos}`, { qos })
    const { topic: at, text, packet } = await heard.take()
    assert.deepEqual([at, text, packet.qos], [`${topic}/${qos}`, `hello ${qos}`, qos])
  }
  await one.endAsync()
  await other.endAsync()
}

await run({
  version311: (url) => eachQuality(url, 4),

  version5: (url) => eachQuality(url, 5),

  async aliases(url) {
    const client = await connect(url, {
      protocolVersion: 5,
      autoUseTopicAlias: true,
      autoAssignTopicAlias: true,
      properties: { topicAliasMaximum: 10 },
    })
    const heard = inbox(client)
    const received = []
    client.on("packetreceive", (packet) => packet.cmd === "publish" && received.push(packet.properties?.topicAlias))
    const topic = plain(unique("topic"))
    await client.subscribeAsync(topic, { qos: 1 })
    for (let number = 0; number < 5; number++) await client.publishAsync(topic, `${number}`, { qos: 1 })
    for (let number = 0; number < 5; number++) {
      const { topic: at, text } = await heard.take()
      assert.deepEqual([at, text], [topic, `${number}`])
    }
    assert.deepEqual(received, [1, 1, 1, 1, 1])
    await client.endAsync()
  },

  async authentication(url) {
    const properties = { authenticationMethod: "PLAIN", authenticationData: Buffer.from("\0guest\0guest") }
    const options = { protocolVersion: 5, username: undefined, password: undefined, properties }
    const client = await connect(url, options)
    const heard = inbox(client)
    const topic = plain(unique("topic"))
    await client.subscribeAsync(topic, { qos: 1 })
    await client.publishAsync(topic, "hello", { qos: 1 })
    assert.equal((await heard.take()).text, "hello")
    await client.endAsync()
    const other = { authenticationMethod: "SCRAM-SHA-256", authenticationData: Buffer.from("n,,") }
    await assert.rejects(connect(url, { ...options, properties: other }), /Bad authentication method/)
  },

  async retained(url) {
    const client = await connect(url)
    const heard = inbox(client)
    const topic = plain(unique("topic"))
    await client.publishAsync(`${topic}/a`, "kept", { qos: 1, retain: true })
    await client.subscribeAsync(`${topic}/+`, { qos: 1 })
    const { text, packet } = await heard.take()
    assert.deepEqual([text, packet.retain], ["kept", true])
    await client.publishAsync(`${topic}/a`, "", { qos: 1, retain: true })
    await client.endAsync()
  },

  async session(url) {
    const clientId = unique("session")
    const options = { clientId, clean: false, protocolVersion: 5, properties: { sessionExpiryInterval: 60 } }
    const first = await connect(url, options)
    const topic = plain(unique("topic"))
    await first.subscribeAsync(topic, { qos: 1 })
    await first.endAsync()
    const other = await connect(url)
    await other.publishAsync(topic, "waits", { qos: 1 })
    await other.endAsync()
    const again = mqtt.connect(url, { ...LOGIN, ...options })
    const heard = inbox(again)
    const [connected, present] = promise()
    again.on("connect", (packet) => present(packet.sessionPresent))
    assert.equal(await connected, true)
    assert.equal((await heard.take()).text, "waits")
    await again.endAsync()
    await (await connect(url, { clientId, clean: true })).endAsync()
  },

  async will(url) {
    const watching = await connect(url)
    const heard = inbox(watching)
    const topic = plain(unique("topic"))
    await watching.subscribeAsync(topic, { qos: 1 })
    const dying = await connect(url, { will: { topic, payload: Buffer.from("gone"), qos: 1 } })
    dying.stream.destroy()
    assert.equal((await heard.take()).text, "gone")
    await watching.endAsync()
  },

  async properties(url) {
    const client = await connect(url, { protocolVersion: 5 })
    const heard = inbox(client)
    const topic = plain(unique("topic"))
    await client.subscribeAsync(topic, { qos: 1, properties: { subscriptionIdentifier: 9 } })
    const properties = {
      payloadFormatIndicator: true,
      contentType: "text/plain",
      responseTopic: "a/b",
      correlationData: Buffer.from([0, 255]),
      userProperties: { a: "1", b: ["2", "3"] },
    }
    await client.publishAsync(topic, "hello", { qos: 1, properties })
    const { packet } = await heard.take()
    assert.deepEqual({ ...packet.properties, userProperties: { ...packet.properties.userProperties } }, {
      ...properties,
      subscriptionIdentifier: 9,
    })
    await client.endAsync()
  },

  async wrongPassword(url) {
    await assert.rejects(connect(url, { password: "wrong" }), /Bad User Name or Password|Connection refused|Not authorized/i)
  },
})
