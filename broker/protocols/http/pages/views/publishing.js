// A form that publishes.

import { ask, path } from "../lib/api.js";
import { form, table, TABLE_HINT } from "../lib/forms.js";

/** To an exchange; `key` is what stands in the form at first. */
export function publishing(page, { vhost, exchange, key }) {
  return form({
    key: "publish", submit: "Publish",
    fields: [
      { name: "key", label: "Routing key", value: key },
      { name: "headers", label: "Headers", type: "textarea", hint: TABLE_HINT },
      { name: "properties", label: "Properties", type: "textarea", hint: TABLE_HINT, placeholder: "delivery_mode = 2" },
      { name: "payload", label: "Payload", type: "textarea" },
    ],
    act: (values) => page.act(async () => {
      const { routed } = await ask("POST", path("exchanges", vhost, exchange, "publish"), {
        routing_key: values.key, payload: values.payload, payload_encoding: "string",
        properties: { ...table(values.properties), headers: table(values.headers) },
      });
      return routed ? "Published, and routed." : "Published, but it was routed nowhere.";
    }),
  });
}
