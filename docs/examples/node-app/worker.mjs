// Writes an invoice for each order.
import amqp from "amqplib"

export const PRICE_CENTS = 1250

export async function startWorker(url) {
  const connection = await amqp.connect(url)
  const channel = await connection.createConfirmChannel()
  await declare(channel)
  await channel.consume("orders", async (order) => {
    channel.sendToQueue("invoices", invoiceOf(order), { persistent: true })
    try {
      await channel.waitForConfirms()
      channel.ack(order)
    } catch {
      channel.nack(order) // it comes again, and so does its invoice
    }
  })
  return connection
}

export async function declare(channel) {
  await channel.assertQueue("orders", { durable: true })
  await channel.assertQueue("invoices", { durable: true })
  await channel.prefetch(1)
}

export function invoiceOf(order) {
  const { number, pieces } = JSON.parse(order.content)
  return Buffer.from(JSON.stringify({ number, cents: pieces * PRICE_CENTS }))
}
