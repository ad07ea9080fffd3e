// The endpoints of MSC4195 that are the homeserver's by their path, at real
// homeservers that federate: Synapse hands them on to its callserver (MSC4512),
// and Dendrite's front sends them to another callserver, which has no privilege
// there but the callers' own tokens, and Dendrite's signing key.
import assert from "node:assert/strict";
import { createHash, createHmac, randomBytes } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { goProgram } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { freePorts, Process, stopAll } from "../process/process.mjs";
import { callName, hash, slot } from "../stack/names.mjs";
import { ground } from "./ground.mjs";
import { MatrixError } from "./homeserver.mjs";

const PATIENCE_MS = 15_000;
const unstable = "unstable/io.element.msc4195/rtc/livekit";

after(stopAll); // what a start that failed left behind

/** One homeserver with its front and its callserver. */
class Side {
  constructor(kind, handedOn) {
    Object.assign(this, { kind, handedOn, secret: randomBytes(24).toString("hex") });
  }

  async open() {
    Object.assign(this, await ground(this.kind, "hosted"));
    this.ports = await freePorts(4);
    this.url = `http://127.0.0.1:${this.ports[0]}`;
    this.sfu = `${this.url.replace("http", "ws")}/livekit/sfu`;
    const { directory, logs, handedOn, url: callserver } = this;
    await this.homeserver.startFront({ directory, logs, callserver, handedOn });
  }

  async start(authorities) {
    const { directory, logs } = this;
    this.roots = join(directory, "roots.pem");
    await writeFile(this.roots, (await Promise.all(authorities.map((file) => readFile(file, "utf8")))).join(""));
    this.registrations = await this.homeserver.registrations(directory, this.url, { proxy: this.handedOn });
    await this.homeserver.startServer({ directory, logs, registrations: Object.values(this.registrations), authorities });
  }

  /** Starts callserver anew, with these lines for its homeserver. */
  async callserver(lines = []) {
    await this.process?.stop();
    const [http, admin, udp, tcp] = this.ports;
    const file = join(this.directory, "callserver.yaml");
    await writeFile(
      file,
      `http: {listen: "127.0.0.1:${http}", public_url: "${this.url}"}
admin: {listen: "127.0.0.1:${admin}"}
media: {udp_port: ${udp}, tcp_port: ${tcp}, advertise: [127.0.0.1]}
turn: {enabled: false}
keys: {test: ${this.secret}}
homeservers:
  - server_name: ${this.homeserver.name}
    client_api: ${this.homeserver.url}
${lines.map((line) => `    ${line}\n`).join("")}
federation_ca_file: ${this.roots}
federation_private_networks: [127.0.0.0/8, "::1/128"]
`,
    );
    const command = [await goProgram("cmd/callserver"), "serve", "--config", file];
    this.process = new Process("callserver", command, { log: join(this.logs, "callserver.log") });
    await this.process.answers(`${this.url}/healthz`, 20_000);
  }

  /** What a token of this callserver says. */
  claims(jwt) {
    const [head, body, signature] = jwt.split(".");
    assert.equal(createHmac("sha256", this.secret).update(`${head}.${body}`).digest("base64url"), signature);
    return JSON.parse(Buffer.from(body, "base64url"));
  }

  async metric(name) {
    const text = await (await fetch(`http://127.0.0.1:${this.ports[1]}/metrics`)).text();
    return Number(new RegExp(`^callserver_${name} (.*)$`, "m").exec(text)?.[1]);
  }

  async stop() {
    await this.process?.stop();
    await this.homeserver?.stop();
    if (this.directory) await rm(this.directory, { recursive: true, force: true });
  }
}

const synapse = new Side("synapse", true);
const dendrite = new Side("dendrite", false);

describe("the homeserver's own endpoints", () => {
  let alice, bob, carol, dora, erin, room; // carol and dora are not in the room
  before(async () => {
    const sides = [synapse, dendrite];
    for (const side of sides) await side.open();
    const authorities = sides.map(({ homeserver }) => homeserver.authority);
    await Promise.all(sides.map((side) => side.start(authorities)));
    const { narrow, wide } = synapse.registrations;
    await synapse.callserver([`registration: [${narrow}, ${wide}]`]);
    await dendrite.callserver(); // no privilege at all
    bob = await synapse.homeserver.register("bob", "bob-password");
    carol = await synapse.homeserver.register("carol", "carol-password");
    erin = await synapse.homeserver.register("erin", "erin-password");
    alice = await dendrite.homeserver.register("alice", "alice-password");
    dora = await dendrite.homeserver.register("dora", "dora-password");
    room = await bob.createRoom({ name: "hosted", encrypted: false, invite: [alice, erin] });
    await erin.join(room);
    await eventually("the invitation arrives", PATIENCE_MS, async () => alice.join(room));
  });
  after(async () => {
    for (const side of [dendrite, synapse]) await side.stop();
  });

  /** What a client asks its homeserver for. */
  const body = (side, more) => ({ url: side.sfu, room_id: room, slot_id: slot, member_id: "m-1", ...more });
  const get = (user, side, more = {}, prefix = unstable) => user.request("POST", `${prefix}/get_token`, body(side, more));
  const refused = (asked, status, errcode) =>
    assert.rejects(asked, (error) => {
      assert.ok(error instanceof MatrixError, String(error));
      assert.deepEqual([error.status, error.errcode], [status, errcode]);
      return true;
    });
  const check = (side, { jwt, ...rest }, user, publishes) => {
    assert.deepEqual(rest, {});
    const { sub, video } = side.claims(jwt);
    assert.equal(sub, hash(user.id, "m-1"));
    assert.equal(video.room, callName(room));
    assert.equal(video.canPublish, publishes);
  };

  test("Synapse hands on get_token", async () => {
    for (const prefix of [unstable, "v1/rtc/livekit"]) check(synapse, await get(bob, synapse, {}, prefix), bob, true);
    check(synapse, await get(bob, synapse, { server_name: synapse.homeserver.name }), bob, true);
    await refused(get(carol, synapse), 403, "M_FORBIDDEN");
    await refused(get(bob, dendrite), 400, "M_INVALID_PARAM");
    await refused(get({ request: stranger(synapse) }, synapse), 401, "M_UNKNOWN_TOKEN");
  });

  test("Synapse hands on delegate_delayed_leave", async () => {
    const probe = () => fetch(`${synapse.url}/_matrix/client/${unstable}/delegate_delayed_leave`, { method: "POST" });
    await eventually("the trial of delayed events", PATIENCE_MS, async () => (await probe()).status !== 404 || undefined);
    const at = `v3/rooms/${encodeURIComponent(room)}/state/org.matrix.msc3401.call.member`;
    const key = encodeURIComponent(`_${bob.id}_${bob.device}_m.call`);
    const { delay_id } = await bob.request("PUT", `${at}/${key}?org.matrix.msc4140.delay=3600000`, {});
    const delegate = (user, more) => user.request("POST", `${unstable}/delegate_delayed_leave`, body(synapse, more));
    assert.deepEqual(await delegate(bob, { delay_id }), {});
    assert.equal(await synapse.metric("leaves_held"), 1);
    await refused(delegate(bob, { delay_id: "syd_unknown" }), 400, "M_INVALID_PARAM");
    await refused(delegate(bob, { delay_id, url: dendrite.sfu }), 400, "M_INVALID_PARAM");
    await refused(delegate(carol, { delay_id }), 403, "M_FORBIDDEN");
    await refused(delegate(erin, { delay_id }), 400, "M_INVALID_PARAM"); // bob's
  });

  test("whoever comes to callserver itself with Synapse's headers is not believed", async () => {
    for (const authorization of [undefined, "Bearer wrong", "Bearer"]) {
      const response = await fetch(`${synapse.url}/_matrix/client/${unstable}/get_token`, {
        method: "POST",
        headers: { ...(authorization && { authorization }), "x-matrix-user-identifier": bob.id },
        body: JSON.stringify(body(synapse)),
      });
      assert.equal(response.status, 401);
    }
  });

  test("callserver serves them for Dendrite by the caller's own token, without any privilege", async () => {
    check(dendrite, await get(alice, dendrite), alice, true);
    await refused(get(dora, dendrite), 403, "M_FORBIDDEN");
    await refused(get({ request: stranger(dendrite) }, dendrite), 401, "M_UNKNOWN_TOKEN");
    await refused(get(alice, synapse), 400, "M_INVALID_PARAM");
  });

  test("without the signing key there is no token of another server, and the log names the setting", async () => {
    await refused(get(alice, synapse, { server_name: synapse.homeserver.name }), 502, "M_UNKNOWN");
    assert.match(await readFile(join(dendrite.logs, "callserver.log"), "utf8"), /homeservers\[\]\.signing_key_file/);
  });

  test("Synapse verifies what callserver signs with Dendrite's key, and hands it on", async () => {
    const key = join(dendrite.directory, "dendrite", "matrix_key.pem");
    const there = { server_name: synapse.homeserver.name };
    await get(bob, synapse); // a user of that server is about to be in the call
    await dendrite.callserver([`signing_key_file: ${await otherKey(key)}`]);
    await refused(get(alice, synapse, there), 502, "M_UNKNOWN"); // signed with a key that Dendrite does not publish
    await dendrite.callserver([`signing_key_file: ${key}`, `registration: ${dendrite.registrations.wide}`]);
    check(synapse, await get(alice, synapse, there), alice, false);
    await refused(get(alice, synapse, { ...there, url: "wss://elsewhere.example/sfu" }), 400, "M_INVALID_PARAM");
    await refused(get(dora, synapse, there), 403, "M_FORBIDDEN");
  });

  test("callserver verifies what Synapse signs for it (MSC4512)", async () => {
    const there = { server_name: dendrite.homeserver.name };
    await get(alice, dendrite); // a user of that server is about to be in the call
    check(dendrite, await get(bob, dendrite, there), bob, false);
    await refused(get(bob, dendrite, { ...there, url: synapse.sfu }), 400, "M_INVALID_PARAM");
    await refused(get(carol, dendrite, there), 403, "M_FORBIDDEN");
  });

  test("no access token is in a log", async () => {
    for (const side of [synapse, dendrite]) {
      const log = await readFile(join(side.logs, "callserver.log"), "utf8");
      for (const user of [alice, bob, carol, dora, erin]) assert.ok(!log.includes(user.token));
    }
  });
});

/** The requests of somebody whose access token the homeserver does not know. */
function stranger(side) {
  return async (method, path, content) => {
    const response = await fetch(`${side.homeserver.url}/_matrix/client/${path}`, {
      method,
      headers: { authorization: "Bearer nobody" },
      body: JSON.stringify(content),
    });
    throw new MatrixError(path, response.status, await response.json());
  };
}

/** A key file with the id of the real key and another secret. */
async function otherKey(file) {
  const other = `${file}.other`;
  const seed = createHash("sha256").update("another").digest("base64");
  await writeFile(other, (await readFile(file, "utf8")).replace(/^[A-Za-z0-9+/]{43}=$/m, seed), { mode: 0o600 });
  return other;
}
