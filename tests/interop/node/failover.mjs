// Publishes and consumes through one node while the leader of the queue is killed: prints "half" when
// half has come, and at the end what it has seen.
import amqp from "amqplib"
import { promise } from "./run.mjs"

const [count] = process.argv.slice(2).map(Number)
const queue = process.env.AMQP_QUEUE
const seen = { confirmed: 0, refused: 0, received: 0, again: 0, unmarked: 0, events: [] }
const connection = await amqp.connect(process.env.AMQP_URL)
const publishes = await connection.createConfirmChannel()
const consumes = await connection.createChannel()
for (const [name, emitter] of Object.entries({ connection, publishes, consumes })) {
  for (const event of ["error", "close", "blocked", "return"]) {
    emitter.on(event, (what) => seen.events.push(`${name}: ${event} ${what ?? ""}`))
  }
}

const bodies = new Set()
const [all, done] = promise()
await consumes.prefetch(20)
const { consumerTag } = await consumes.consume(queue, (message) => {
  if (message === null) return seen.events.push("cancelled")
  const body = message.content.toString()
  if (bodies.has(body)) {
    seen.again++
    if (!message.fields.redelivered) seen.unmarked++
  } else {
    bodies.add(body)
    seen.received++
  }
  consumes.ack(message)
  if (bodies.size === count / 2) console.log("half")
  if (bodies.size === count) done()
})

for (let number = 0; number < count; number++) {
  await new Promise((next) =>
    publishes.sendToQueue(queue, Buffer.from(`${number}`), { persistent: true }, (error) => {
      if (error) seen.refused++
      else seen.confirmed++
      next()
    }),
  )
}
await all
await consumes.cancel(consumerTag)
seen.left = (await consumes.checkQueue(queue)).messageCount
const isOrderly = seen.events.length === 0
await connection.close()
if (isOrderly) seen.events = []
console.log(JSON.stringify(seen))
