// MQTT.js asks something and prints the answer: `node mqtt-request.mjs URL TOPIC`.
import mqtt from "mqtt"
import { Inbox } from "./run.mjs"

const [url, topic] = process.argv.slice(2)
const client = await mqtt.connectAsync(url, { username: "guest", password: "guest", reconnectPeriod: 0, protocolVersion: 5 })
const heard = new Inbox()
client.on("message", (_topic, payload) => heard.put(payload.toString()))
await client.subscribeAsync(`${topic}/answer`, { qos: 2 })
await client.publishAsync(`${topic}/ask`, "question", { qos: 2 })
console.log(await heard.take())
await client.endAsync()
