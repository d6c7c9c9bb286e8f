// The control API of `fluffle test-server`.
export async function control(path, args = {}) {
  const request = { method: "POST", body: JSON.stringify(args) }
  const answer = await fetch(`${process.env.FLUFFLE_CONTROL_URL}/${path}`, request)
  const told = await answer.json()
  if (!answer.ok) throw new Error(told.error)
  return told
}
