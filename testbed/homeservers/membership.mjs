// Only members of a Matrix room get into its calls, and who is kicked is
// disconnected: callserver with the registrations that it gives to operators,
// at real homeservers, without a browser.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { goProgram, outputs } from "../process/cache.mjs";
import { freePorts, Process, stopAll } from "../process/process.mjs";
import { Homeserver, peer } from "./homeserver.mjs";

/** Milliseconds for which callserver believes that a user is in a room, unless an event says otherwise. */
const BELIEVED_MS = 20_000;

after(stopAll); // what a start that failed left behind

/** Starts a homeserver and a callserver that have each other's registrations. */
async function start(kind) {
  await (await peer(kind)).prepare();
  const logs = join(outputs, `membership-${kind}`);
  await rm(logs, { recursive: true, force: true });
  await mkdir(logs, { recursive: true });
  const directory = await mkdtemp(join(tmpdir(), "callserver-testbed-"));
  const homeserver = new Homeserver(kind);
  await homeserver.reserve();
  const [http, admin, udp, tcp] = await freePorts(4);
  const url = `http://127.0.0.1:${http}`;
  const registrations = await homeserver.registrations(directory, url);
  await homeserver.start({ directory, logs, callserver: url, registrations: Object.values(registrations) });
  const file = join(directory, "callserver.yaml");
  await writeFile(
    file,
    `http: {listen: "127.0.0.1:${http}"}
admin: {listen: "127.0.0.1:${admin}"}
media: {udp_port: ${udp}, tcp_port: ${tcp}, advertise: [127.0.0.1]}
keys: {test: ${randomBytes(24).toString("hex")}}
homeservers:
  - server_name: ${homeserver.name}
    client_api: ${homeserver.url}
    registration: [${registrations.narrow}, ${registrations.wide}]
federation_ca_file: ${homeserver.authority}
`,
  );
  const program = await goProgram("cmd/callserver");
  const callserver = new Process("callserver", [program, "serve", "--config", file], { log: join(logs, "callserver.log") });
  await callserver.answers(`${url}/healthz`, 20_000);
  return { homeserver, callserver, registrations, url, directory };
}

/** The first frame of a websocket server's bytes (RFC 6455 §5.2), or undefined while it is not complete. */
function wholeFrame(bytes) {
  const head = { 126: 4, 127: 10 }[bytes[1]] ?? 2;
  if (bytes.length < head) return undefined;
  const length = head === 2 ? bytes[1] : head === 4 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  return bytes.length < head + length ? undefined : { opcode: bytes[0] & 15, size: head + length };
}

/** Joins a call as LiveKit clients with two connections do, without media; ended is resolved when the server ends it. */
async function connect({ url, jwt }) {
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
      }
    });
  });
  await once(socket, "data"); // the answer to the join
  return call;
}

/** Whether the SFU takes a token. */
const good = async ({ url, jwt }) =>
  (await fetch(`${url.replace("ws", "http")}/rtc/validate?access_token=${jwt}`)).status === 200;

for (const kind of ["dendrite", "synapse"]) {
  describe(kind, () => {
    let world, alice, carol, room;
    before(async () => {
      world = await start(kind);
      alice = await world.homeserver.register("alice", "alice-password");
      carol = await world.homeserver.register("carol", "carol-password");
      room = await alice.createRoom({ name: "members only", encrypted: false });
    });
    after(async () => {
      await world?.callserver.stop();
      await world?.homeserver.stop();
      if (world) await rm(world.directory, { recursive: true, force: true });
    });

    const ask = async (user, token) => {
      const response = await fetch(`${world.url}/livekit/jwt/sfu/get`, {
        method: "POST",
        body: JSON.stringify({ room, openid_token: token ?? (await user.openID()), device_id: user.device }),
      });
      return { status: response.status, body: await response.json() };
    };
    const refused = async (user) => {
      const { status, body } = await ask(user);
      assert.deepEqual([status, body.errcode], [403, "M_FORBIDDEN"], JSON.stringify(body));
    };
    const admitted = async (user) => {
      const { status, body } = await ask(user);
      assert.equal(status, 200, JSON.stringify(body));
      return body;
    };
    const act = (what, user) =>
      alice.request("POST", `v3/rooms/${encodeURIComponent(room)}/${what}`, { user_id: user.id });

    test("only who is in the room is admitted", async () => {
      await refused(carol);
      await act("invite", carol);
      await refused(carol);
      await carol.join(room);
      await admitted(carol);
    });

    test("who was kicked or banned gets no new token", async () => {
      await sleep(BELIEVED_MS); // nobody tells us: the sender is not in the room
      await act("kick", carol);
      await refused(carol);
      await act("ban", carol);
      await refused(carol);
      await act("unban", carol);
      await refused(carol);
      await act("invite", carol);
      await carol.join(room);
      await admitted(carol);
    });

    test("with the sender in the room, a kick ends the call within 2 s, and the token is worthless", async (t) => {
      await world.homeserver.joinSender(world.registrations.narrow, alice, room);
      for (const what of ["kick", "ban"]) {
        const token = await admitted(carol);
        const [call, other] = [await connect(token), await connect(await admitted(alice))];
        const begin = performance.now();
        await act(what, carol);
        await call.ended;
        const took = performance.now() - begin;
        t.diagnostic(`the call ended ${Math.round(took)} ms after the ${what}`);
        assert.ok(took < 2_000, `the call ended ${took} ms after the ${what}`);
        assert.equal(other.open, true, "the others stay");
        other.close();
        assert.equal(await good(token), false, "the token is worthless");
        await refused(carol);
        if (what === "ban") await act("unban", carol);
        await act("invite", carol);
        await carol.join(room);
        assert.equal(await good(await admitted(carol)), true, "verified anew");
        assert.equal(await good(token), false, "the old token stays worthless");
      }
    });

    test("the homeserver stopped: nobody is admitted, and nobody is dropped", async () => {
      const call = await connect(await admitted(carol));
      const token = await carol.openID();
      await sleep(BELIEVED_MS);
      await world.homeserver.pause();
      const { status, body } = await ask(carol, token);
      assert.equal(call.open, true, "the call goes on");
      call.close();
      assert.ok([401, 502].includes(status), `${status} ${body.errcode}`);
    });
  });
}
