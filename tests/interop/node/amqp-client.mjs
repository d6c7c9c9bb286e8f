// @cloudamqp/amqp-client: promises all the way, and a session that comes back by itself.
import { AMQPClient, AMQPSession } from "@cloudamqp/amqp-client"
import assert from "node:assert/strict"
import { Inbox, SELF_CLEANING, promise, run, unique } from "./run.mjs"

async function withChannel(url, body) {
  const client = new AMQPClient(url)
  const connection = await client.connect()
  const channel = await connection.channel()
  const { name: queue } = await channel.queueDeclare("", { exclusive: true })
  await body({ connection, channel, queue })
  await connection.close()
}

async function send(channel, queue, ...bodies) {
  for (const body of bodies) await channel.basicPublish("", queue, body)
}

const text = (message) => message.bodyString()

const HEADERS = {
  text: "καλημέρα",
  bytes: new Uint8Array([0, 255]),
  yes: true,
  int: -7,
  long: 2 ** 40,
  float: 2.5,
  double: 2 ** 40 + 0.5,
  nothing: null,
  list: [1, "two", null, [true], { deep: "est" }],
  table: { a: { b: [{}] } },
  time: new Date(1_800_000_000_000),
}

const PROPERTIES = {
  contentType: "text/plain",
  contentEncoding: "utf-8",
  deliveryMode: 2,
  priority: 5,
  correlationId: "c",
  replyTo: "r",
  expiration: "60000",
  messageId: "m",
  timestamp: new Date(1_800_000_000_000),
  type: "t",
  userId: "guest",
  appId: "a",
}

await run({
  async negotiation(url) {
    const client = new AMQPClient(`${url}?heartbeat=7&frameMax=8192&channelMax=12`)
    const { heartbeat, frameMax, channelMax } = await client.connect()
    assert.deepEqual({ heartbeat, frameMax, channelMax }, { heartbeat: 7, frameMax: 8192, channelMax: 12 })
    await client.close()
  },

  async login(url) {
    const wrong = new URL(url)
    wrong.password = "wrong"
    await assert.rejects(new AMQPClient(wrong.href).connect(), /Login was refused|ACCESS_REFUSED/)
  },

  confirms: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      await channel.confirmSelect()
      const tags = await Promise.all(
        Array.from({ length: 500 }, (_, n) => channel.basicPublish("", queue, `${n}`)),
      )
      assert.equal(Math.max(...tags), 500)
      assert.equal((await channel.queueDeclare(queue, { passive: true })).messageCount, 500)
    }),

  nack: (url) =>
    withChannel(url, async ({ channel }) => {
      const limits = { "x-max-length": 1, "x-overflow": "reject-publish" }
      const { name } = await channel.queueDeclare("", { exclusive: true }, limits)
      await channel.confirmSelect()
      await channel.basicPublish("", name, "fits")
      await assert.rejects(channel.basicPublish("", name, "does not"), /rejected/i)
    }),

  mandatory: (url) =>
    withChannel(url, async ({ channel }) => {
      const [returned, onReturn] = promise()
      channel.onReturn = onReturn
      await channel.basicPublish("amq.direct", "nowhere", "back", {}, true)
      const message = await returned
      assert.deepEqual([message.replyCode, message.replyText], [312, "NO_ROUTE"])
      assert.equal(text(message), "back")
    }),

  exchanges: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      const exchange = unique("topic")
      await channel.exchangeDeclare(exchange, "topic", { durable: true, autoDelete: false })
      await channel.exchangeBind(exchange, "amq.topic", `${exchange}.*`)
      await channel.queueBind(queue, exchange, "#.yes")
      await channel.basicPublish("amq.topic", `${exchange}.yes`, "yes")
      await channel.basicPublish("amq.topic", `${exchange}.no`, "no")
      const message = await channel.basicGet(queue, { noAck: true })
      assert.deepEqual([text(message), message.exchange], ["yes", "amq.topic"])
      assert.equal(await channel.basicGet(queue), null)
      await channel.queueUnbind(queue, exchange, "#.yes")
      await channel.exchangeUnbind(exchange, "amq.topic", `${exchange}.*`)
      await channel.exchangeDelete(exchange, { ifUnused: true })
    }),

  prefetch: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      await send(channel, queue, "0", "1", "2", "3")
      const inbox = new Inbox()
      await channel.basicQos(2)
      const consumer = await channel.basicConsume(queue, { noAck: false }, inbox.put)
      const [first, second] = [await inbox.take(), await inbox.take()]
      const { messageCount, consumerCount } = await channel.queueDeclare(queue, { passive: true })
      assert.deepEqual([messageCount, consumerCount, inbox.size], [2, 1, 0])
      await first.ack()
      const third = await inbox.take()
      await third.ack(true)
      const fourth = await inbox.take()
      assert.deepEqual([first, second, third, fourth].map(text), ["0", "1", "2", "3"])
      await fourth.nack(false)
      await consumer.cancel()
      assert.equal((await channel.queueDelete(queue)).messageCount, 0)
    }),

  requeue: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      await send(channel, queue, "1", "2")
      const get = () => channel.basicGet(queue, { noAck: false })
      const [first, second] = [await get(), await get()]
      await first.nack(true)
      await second.reject(true)
      const again = [await get(), await get()]
      assert.deepEqual(again.map((m) => [text(m), m.redelivered]), [["1", true], ["2", true]])
      await channel.basicRecover(true)
      assert.equal((await channel.queuePurge(queue)).messageCount, 2)
    }),

  properties: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      const sent = { ...PROPERTIES, headers: HEADERS }
      await channel.basicPublish("", queue, "", sent)
      const message = await channel.basicGet(queue, { noAck: true })
      assert.deepEqual(message.properties, sent)
      assert.equal(message.bodySize, 0)
    }),

  bigBody: (url) =>
    withChannel(url, async ({ channel, queue }) => {
      const body = Buffer.alloc(1 << 20, "0123456789abcdef")
      await channel.basicPublish("", queue, body)
      assert.ok(body.equals((await channel.basicGet(queue, { noAck: true })).body))
    }),

  channelError: (url) =>
    withChannel(url, async ({ connection, channel }) => {
      const missing = unique("missing")
      await assert.rejects(
        channel.queueDeclare(missing, { passive: true }),
        (error) => error.message.includes(`NOT_FOUND - no queue '${missing}' in vhost '/'`),
      )
      assert.equal(channel.closed, true)
      const again = await connection.channel()
      assert.equal((await again.queueDeclare("", { exclusive: true })).messageCount, 0)
    }),

  async connectionError(url) {
    const client = new AMQPClient(url)
    client.onerror = () => {}
    const channel = await (await client.connect()).channel()
    await assert.rejects(channel.basicQos(1, 1), /NOT_IMPLEMENTED/)
    assert.equal(client.closed, true)
  },

  exclusive: (url) =>
    withChannel(url, async ({ queue }) => {
      assert.match(queue, /^amq\.gen-/)
      await withChannel(url, async ({ connection }) => {
        const channel = await connection.channel()
        await assert.rejects(channel.queuePurge(queue), /RESOURCE_LOCKED/)
      })
    }),

  transaction: (url) =>
    withChannel(url, async ({ connection, channel, queue }) => {
      const other = await connection.channel()
      await channel.txSelect()
      await send(channel, queue, "dropped")
      await channel.txRollback()
      await send(channel, queue, "kept")
      assert.equal(await other.basicGet(queue), null)
      await channel.txCommit()
      assert.equal(text(await other.basicGet(queue, { noAck: true })), "kept")
    }),

  cancelNotify: (url) =>
    withChannel(url, async ({ connection, channel, queue }) => {
      const consumer = await channel.basicConsume(queue, {}, () => {})
      const ended = assert.rejects(consumer.wait(), /cancel/i)
      await (await connection.channel()).queueDelete(queue)
      await ended
    }),

  async rpc(url) {
    const session = await AMQPSession.connect(url)
    const queue = unique("rpc")
    const server = await session.rpcServer(queue, (message) => `${text(message)}!`)
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) => session.rpcCall(queue, `${n}`, { timeout: 10_000 })),
    )
    assert.deepEqual(answers.map(text), Array.from({ length: 20 }, (_, n) => `${n}!`))
    await server.close()
    await (await session.queue(queue)).delete()
    await session.stop()
  },

  async session(url) {
    const [lost, onLost] = promise()
    const session = await AMQPSession.connect(url, { reconnectInterval: 10, ondisconnect: onLost })
    const queue = await session.queue(unique("session"), { arguments: SELF_CLEANING })
    const inbox = new Inbox()
    await queue.subscribe({ manualAck: true, prefetch: 1 }, inbox.put)
    await queue.publish("unsettled", { confirm: true })
    const before = await inbox.take()
    before.channel.connection.socket.destroy()
    await lost
    const after = await inbox.take()
    assert.deepEqual([text(after), after.redelivered], ["unsettled", true])
    await after.ack()
    await queue.delete()
    await session.stop()
  },
})
