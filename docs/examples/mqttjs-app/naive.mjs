// The same, by somebody who believes that a message comes once.
import { connect } from "./till.mjs"

export function startTill(url, charge) {
  return connect(url, charge)
}
