// amqplib: the client most programs on node use.
import amqp from "amqplib"
import assert from "node:assert/strict"
import { once } from "node:events"
import { Inbox, SELF_CLEANING, promise, run, unique } from "./run.mjs"

async function withChannel(url, body) {
  const connection = await amqp.connect(url)
  const channel = await connection.createConfirmChannel()
  const { queue } = await channel.assertQueue("", { exclusive: true })
  await body({ connection, channel, queue })
  await connection.close()
}

const text = (message) => message.content.toString()

const send = (channel, queue, ...bodies) =>
  bodies.forEach((body) => channel.sendToQueue(queue, Buffer.from(body)))

const HEADERS = {
  text: "καλημέρα",
  bytes: Buffer.from([0, 255]),
  yes: true,
  int8: -7,
  int16: 300,
  int32: 70_000,
  int64: 2 ** 40,
  double: 2.5,
  nothing: null,
  list: [1, "two", null, [true], { deep: "est" }],
  table: { a: { b: [{}] } },
  time: { "!": "timestamp", value: 1_800_000_000 },
  decimal: { "!": "decimal", value: { places: 2, digits: 325 } },
}

const EXPLICIT = { uint8: 200, uint16: 60_000, uint32: 4_000_000_000, float: 1.5 }

const PROPERTIES = {
  contentType: "text/plain",
  contentEncoding: "utf-8",
  deliveryMode: 2,
  priority: 5,
  correlationId: "c",
  replyTo: "r",
  expiration: "60000",
  messageId: "m",
  timestamp: 1_800_000_000,
  type: "t",
  userId: "guest",
  appId: "a",
}

await run({
  async negotiation(url) {
    const connection = await amqp.connect(`${url}?heartbeat=7&frameMax=8192&channelMax=12`)
    const { serverProperties, heartbeat, frameMax, channelMax } = connection.connection
    assert.deepEqual({ heartbeat, frameMax, channelMax }, { heartbeat: 7, frameMax: 8192, channelMax: 12 })
    assert.equal(serverProperties.product, "RabbitMQ")
    assert.equal(serverProperties.capabilities["basic.nack"], true)
    await connection.close()
    return serverProperties.version
  },

  async login(url) {
    const wrong = new URL(url)
    wrong.password = "wrong"
    await assert.rejects(amqp.connect(wrong.href), /403.*ACCESS.REFUSED/)
    const amqplain = amqp.credentials.amqplain("guest", "guest")
    await (await amqp.connect(url, { credentials: amqplain })).close()
  },

  confirms: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      for (let n = 0; n < 500; n++) send(channel, queue, `${n}`)
      await channel.waitForConfirms()
      assert.equal((await channel.checkQueue(queue)).messageCount, 500)
    }),

  mandatory: (url) =>
    withChannel(url, async ({ channel }) => {
      const returned = once(channel, "return")
      channel.publish("amq.direct", "nowhere", Buffer.from("back"), { mandatory: true })
      const [message] = await returned
      assert.equal(message.fields.replyCode, 312)
      assert.equal(message.fields.replyText, "NO_ROUTE")
      assert.equal(text(message), "back")
      await channel.waitForConfirms()
    }),

  exchanges: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      const [source, target, spare] = ["source", "target", "spare"].map(unique)
      await channel.assertExchange(spare, "fanout")
      await channel.assertExchange(source, "topic", { alternateExchange: spare })
      await channel.assertExchange(target, "headers", { internal: true })
      await channel.bindExchange(target, source, "stock.#")
      await channel.bindQueue(queue, target, "", { "x-match": "all", colour: "red" })
      await channel.bindQueue(queue, spare, "")
      for (const key of ["stock.red", "bond.red"])
        channel.publish(source, key, Buffer.from(key), { headers: { colour: "red" } })
      channel.publish(source, "stock.blue", Buffer.from("lost"), { headers: { colour: "blue" } })
      await channel.waitForConfirms()
      const got = [await channel.get(queue, { noAck: true }), await channel.get(queue, { noAck: true })]
      assert.deepEqual(got.map(text), ["stock.red", "bond.red"])
      assert.equal(await channel.get(queue), false) // `source` had a match, so no alternate for it
      for (const exchange of [source, target, spare]) await channel.deleteExchange(exchange)
    }),

  prefetch: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      send(channel, queue, "0", "1", "2", "3", "4")
      const inbox = new Inbox()
      await channel.prefetch(2)
      const { consumerTag } = await channel.consume(queue, inbox.put)
      const [first, second] = [await inbox.take(), await inbox.take()]
      const { messageCount, consumerCount } = await channel.checkQueue(queue)
      assert.deepEqual([messageCount, consumerCount, inbox.size], [3, 1, 0])
      channel.ack(first)
      const third = await inbox.take()
      channel.ack(third, true)
      const rest = [await inbox.take(), await inbox.take()]
      assert.deepEqual([first, second, third, ...rest].map(text), ["0", "1", "2", "3", "4"])
      channel.ackAll()
      await channel.cancel(consumerTag)
      assert.equal((await channel.checkQueue(queue)).messageCount, 0)
    }),

  requeue: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      send(channel, queue, "1", "2", "3")
      const messages = [await channel.get(queue), await channel.get(queue), await channel.get(queue)]
      assert.equal(await channel.get(queue), false)
      channel.nack(messages[1], false, false)
      channel.reject(messages[2], true)
      channel.nackAll(true)
      const again = [await channel.get(queue), await channel.get(queue)]
      assert.deepEqual(again.map((m) => [text(m), m.fields.redelivered]), [["1", true], ["3", true]])
      await channel.recover()
      assert.equal((await channel.purgeQueue(queue)).messageCount, 2)
    }),

  properties: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      const explicit = Object.fromEntries(
        Object.entries(EXPLICIT).map(([type, value]) => [type, { "!": type, value }]),
      )
      const options = { ...PROPERTIES, headers: { ...HEADERS, ...explicit } }
      channel.sendToQueue(queue, Buffer.alloc(0), options)
      const message = await channel.get(queue, { noAck: true })
      assert.deepEqual({ ...message.properties.headers }, { ...HEADERS, ...EXPLICIT })
      assert.deepEqual(
        Object.fromEntries(Object.keys(PROPERTIES).map((key) => [key, message.properties[key]])),
        PROPERTIES,
      )
      assert.equal(message.content.length, 0)
    }),

  bigBody: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      const body = Buffer.alloc(1 << 20, "0123456789abcdef")
      channel.sendToQueue(queue, body)
      assert.ok(body.equals((await channel.get(queue, { noAck: true })).content))
    }),

  channelError: (url) =>
    withChannel(url, async ({ connection }) => {
      const channel = await connection.createChannel()
      const failed = once(channel, "error")
      const missing = unique("missing")
      await assert.rejects(channel.checkQueue(missing), /404 \(NOT-FOUND\)/)
      const [error] = await failed
      assert.equal(error.code, 404)
      assert.equal(error.classId, 50)
      assert.equal(error.methodId, 10)
      const again = await connection.createChannel()
      assert.equal((await again.assertQueue("", { exclusive: true })).messageCount, 0)
    }),

  connectionError: (url) =>
    withChannel(url, async ({ connection: other }) => {
      const connection = await amqp.connect(url)
      const channel = await connection.createChannel()
      const { queue } = await channel.assertQueue("", { exclusive: true })
      const failed = once(connection, "error")
      channel.on("error", () => {})
      await channel.consume(queue, () => {}, { consumerTag: "twice" })
      await assert.rejects(channel.consume(queue, () => {}, { consumerTag: "twice" }))
      assert.equal((await failed)[0].code, 530)
      const survivor = await other.createChannel()
      await survivor.assertQueue("", { exclusive: true })
    }),

  exclusive: (url) =>
    withChannel(url, async ({ queue }) => {
      assert.match(queue, /^amq\.gen-/)
      const other = await amqp.connect(url)
      const channel = await other.createChannel()
      channel.on("error", () => {})
      await assert.rejects(channel.consume(queue, () => {}), /405 \(RESOURCE-LOCKED\)/)
      await other.close()
    }),

  rpc: (url) =>
    withChannel(url, async ({ connection, channel, queue }) => {
      const answers = new Inbox()
      const replyTo = "amq.rabbitmq.reply-to"
      await channel.consume(replyTo, answers.put, { noAck: true })
      channel.sendToQueue(queue, Buffer.from("question"), { replyTo, correlationId: "1" })
      const server = await connection.createChannel()
      const request = await server.get(queue, { noAck: true })
      const { correlationId } = request.properties
      server.sendToQueue(request.properties.replyTo, Buffer.from("answer"), { correlationId })
      const answer = await answers.take()
      assert.deepEqual([text(answer), answer.properties.correlationId], ["answer", "1"])
    }),

  cancelNotify: (url) =>
    withChannel(url, async ({ connection, channel, queue }) => {
      const inbox = new Inbox()
      await channel.consume(queue, inbox.put)
      await (await connection.createChannel()).deleteQueue(queue)
      assert.equal(await inbox.take(), null)
    }),

  async heartbeat(url) {
    const connection = await amqp.connect(`${url}?heartbeat=1`)
    const { stream } = connection.connection
    for (let beats = 0; beats < 3; beats++) await once(stream, "data")
    await (await connection.createChannel()).close()
    await connection.close()
  },

  // What is still in its buffers goes out behind connection.close.
  async closeBehindMuch(url) {
    for (let times = 0; times < 5; times++) {
      const connection = await amqp.connect(url)
      const errors = []
      connection.on("error", (error) => errors.push(error))
      const channels = await Promise.all([1, 2, 3].map(() => connection.createChannel()))
      const { queue } = await channels[0].assertQueue("", { exclusive: true })
      for (const channel of channels) {
        let sent = 0
        while (sent < 2000 && (channel.sendToQueue(queue, Buffer.alloc(4000)) || sent < 1000)) sent++
      }
      await connection.close()
      assert.deepEqual(errors, [])
    }
  },

  async recovery(url) {
    const queue = unique("recovery")
    const inbox = new Inbox()
    const setup = async (model) => {
      const channel = await model.createChannel()
      channel.on("error", () => {})
      await channel.assertQueue(queue, { arguments: SELF_CLEANING })
      await channel.consume(queue, (message) => inbox.put({ channel, message }))
    }
    const recovering = await amqp.connect(url, { recovery: { initialDelay: 10, setup } })
    recovering.on("error", () => {})
    const [disconnected, onDisconnect] = promise()
    recovering.on("disconnect", onDisconnect)
    await withChannel(url, async ({ channel }) => {
      send(channel, queue, "unsettled")
      const before = await inbox.take()
      before.channel.connection.stream.destroy(new Error("cut"))
      await disconnected
      const after = await inbox.take()
      assert.deepEqual([text(after.message), after.message.fields.redelivered], ["unsettled", true])
      await after.channel.deleteQueue(queue)
    })
    await recovering.close()
  },
})
