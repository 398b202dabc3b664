// Two devices of one account, each an unmodified `rpc-websockets` client. Prints what they saw, as JSON.
import { Client } from "rpc-websockets"

const url = process.argv[2]
const email = "joe@example.com"
const password = "derived from the root password"

const connect = () =>
  new Promise((resolve, reject) => {
    const client = new Client(url, { reconnect: false })
    client.once("open", () => resolve(client))
    client.once("error", (event) => reject(new Error(event.message)))
  })

const laptop = await connect()
const phone = await connect()
const seen = {}

seen.info = await laptop.call("server.info")
seen.registered = await laptop.call("account.register", {
  email,
  password,
  clientSaltSeed: "0123456789abcdef".repeat(4),
  kdf: { name: "scrypt", n: 16384, r: 8, p: 1 },
})
seen.keyDerivation = await laptop.call("account.prelogin", { email })
seen.refused = await laptop.call("wallet.get").catch((error) => error)
await laptop.call("session.login", { email, password, deviceId: "laptop" })
await phone.call("session.login", { email, password, deviceId: "phone", deliver: "state" })

const heard = new Promise((resolve) => phone.once("wallet.updated", resolve))
seen.pushed = await laptop.call("wallet.push", { sequence: 1, encryptedWallet: "from the laptop", hmac: "1" })
seen.heard = await heard
seen.conflict = await phone
  .call("wallet.push", { sequence: 1, encryptedWallet: "from the phone", hmac: "1" })
  .catch((error) => error)
const latest = seen.conflict.data.wallet
seen.merged = await phone.call("wallet.push", {
  sequence: latest.sequence + 1,
  encryptedWallet: `${latest.encryptedWallet}, and from the phone`,
  hmac: "2",
})
seen.wallet = await laptop.call("wallet.get")

const revoked = new Promise((resolve) => phone.once("session.revoked", resolve))
const closed = new Promise((resolve) => phone.once("close", resolve))
seen.revoking = await laptop.call("device.revoke", { deviceId: "phone" })
seen.revoked = await revoked
seen.closed = await closed
laptop.close()
console.log(JSON.stringify(seen))
