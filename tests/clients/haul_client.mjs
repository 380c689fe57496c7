// A haul client made of Node's standard library: log in, put a file, list, get it back, compare.
//     node haul_client.mjs HOST PORT USER PASSWORD LOCAL REMOTE
// What comes back is written to LOCAL.back. docs/PROTOCOL.md explains every line.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { open, rename, stat } from "node:fs/promises";
import { connect } from "node:net";

const [host, port, user, password, local, remote] = process.argv.slice(2);

// One connection, with one request under way at a time.
const socket = connect({ host, port: Number(port), noDelay: true });
socket.setTimeout(60_000, () => socket.destroy(new Error("the server is silent")));
const input = socket[Symbol.asyncIterator]();
let [received, id] = [Buffer.alloc(0), 0];

const u32 = (number) => Buffer.from(number.toString(16).padStart(8, "0"), "hex");
const request = (fields) => send(Buffer.from(JSON.stringify({ id, ...fields })));

async function send(...parts) {
  const payload = Buffer.concat(parts);
  if (!socket.write(Buffer.concat([u32(payload.length), payload]))) await once(socket, "drain");
}
async function exactly(length) {
  while (received.length < length) {
    const { value, done } = await input.next();
    if (done) throw new Error("the server closed the connection");
    received = Buffer.concat([received, value]);
  }
  const bytes = received.subarray(0, length);
  received = received.subarray(length);
  return bytes;
}
// What `ok` holds in the final reply; data that comes before it goes to `onData`.
async function reply(onData) {
  for (;;) {
    const payload = await exactly((await exactly(4)).readUInt32BE());
    const message = payload[0] === 1 ? await onData(payload.subarray(5)) : JSON.parse(payload);
    if (message?.error) throw new Error(`${message.error.code}: ${message.error.message}`);
    if (message?.id === id && message.ok) return message.ok; // all others are `begin` and events
  }
}
async function call(cmd, fields, onData) {
  id += 1;
  await request({ cmd, ...fields });
  return reply(onData);
}
async function put(file, path) {
  const sha256 = createHash("sha256");
  id += 1;
  await request({ cmd: "put", path, size: (await stat(file)).size, digest: "sha256" });
  for await (const chunk of createReadStream(file, { highWaterMark: 128 * 1024 })) {
    sha256.update(chunk);
    await send(Buffer.from([1]), u32(id), chunk);
  }
  await request({ cmd: "end", digest: `sha256:${sha256.digest("hex")}` });
  return reply();
}
async function get(path, name) {
  const [file, sha256] = [await open(`${name}.part`, "w"), createHash("sha256")];
  const keep = (chunk) => file.writeFile(sha256.update(chunk) && chunk);
  const ok = await call("get", { path, digest: "sha256" }, keep);
  await file.close();
  if (ok.digest !== `sha256:${sha256.digest("hex")}`) throw new Error("other bytes came");
  await rename(`${name}.part`, name);
  return ok;
}

console.log("logged in as", (await call("login", { user, password })).user);
const stored = await put(local, remote);
console.log("put", stored.path, stored.size, stored.digest);
const { entries } = await call("ls", { path: "/" }); // the first page
for (const { kind, size, name } of entries) console.log("ls ", kind, size, JSON.stringify(name));
const got = await get(stored.path, `${local}.back`);
console.log("got", stored.path, got.size, got.digest);
await call("quit");
socket.destroy();
process.exitCode = got.digest === stored.digest ? 0 : 1;
