// The same, by somebody who believes that what is sent has arrived.
import amqp from "amqplib"
import { declare, invoiceOf } from "./worker.mjs"

export async function startWorker(url) {
  const connection = await amqp.connect(url)
  const channel = await connection.createChannel()
  await declare(channel)
  await channel.consume("orders", (order) => {
    channel.sendToQueue("invoices", invoiceOf(order), { persistent: true })
    channel.ack(order)
  })
  return connection
}
