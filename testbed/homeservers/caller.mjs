// Somebody in a call, without media: as much of a LiveKit client as it takes to
// be there, and to notice the end.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { get } from "node:http";

/** The first frame of a websocket server's bytes (RFC 6455 §5.2), or undefined while it is not complete. */
function wholeFrame(bytes) {
  const head = { 126: 4, 127: 10 }[bytes[1]] ?? 2;
  if (bytes.length < head) return undefined;
  const length = head === 2 ? bytes[1] : head === 4 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  return bytes.length < head + length ? undefined : { opcode: bytes[0] & 15, size: head + length };
}

/** The answer to a ping, which has less than 126 bytes (RFC 6455 §5.5), under a mask of zeros. */
const pong = (ping) => Buffer.concat([Buffer.of(0x8a, 0x80 | ping[1], 0, 0, 0, 0), ping.subarray(2)]);

/** Joins a call as LiveKit clients with two connections do, without media; ended is resolved when the server ends it. */
export async function connect({ url, jwt }) {
  const address = `${url.replace("ws", "http")}/rtc?access_token=${jwt}&auto_subscribe=1&sdk=js&version=2.22.3&protocol=16`;
  const headers = {
    connection: "Upgrade",
    upgrade: "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": randomBytes(16).toString("base64"),
  };
  const [response, socket] = await once(get(address, { headers, agent: false }), "upgrade");
  assert.equal(response.statusCode, 101);
  const call = { open: true, close: () => socket.destroy() };
  call.ended = new Promise((resolve) => {
    const end = () => resolve((call.open = false));
    socket.on("close", end);
    socket.on("error", end);
    let rest = Buffer.alloc(0);
    socket.on("data", (data) => {
      rest = Buffer.concat([rest, data]);
      for (let frame; (frame = wholeFrame(rest)); rest = rest.subarray(frame.size)) {
        if (frame.opcode === 8) end(); // close; we do not answer, as a client that hangs would not
        if (frame.opcode === 9) socket.write(pong(rest.subarray(0, frame.size)));
      }
    });
  });
  await once(socket, "data"); // the answer to the join
  return call;
}
