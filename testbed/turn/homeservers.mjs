// One-to-one calls of a homeserver's users (m.call.*), through the relay alone: the homeserver makes the credentials with the secret that
// callserver has too, and each packet goes from one user's relay to the other's.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { rm } from "node:fs/promises";
import { after, before, describe, test } from "node:test";

import { launch } from "../elementcall/call.mjs";
import { ground, serve } from "../homeservers/ground.mjs";
import { LegacyClient } from "../legacy/client.mjs";
import { freePorts, stopAll, stopOnSignals } from "../process/process.mjs";

stopOnSignals();
let browser;
before(async () => (browser = await launch()));
after(stopAll);

for (const kind of process.env.HOMESERVER?.split(",") ?? ["synapse", "dendrite"]) {
  describe(`a call of two at ${kind}`, () => {
    let here, room, admin, alice, bob;
    before(async () => {
      here = await ground(kind, "turn");
      const { homeserver, directory, logs } = here;
      const secret = randomBytes(24).toString("hex");
      const ports = await freePorts(5);
      const relay = ports.pop();
      admin = ports[1];
      const uris = ["udp", "tcp"].map((transport) => `turn:127.0.0.1:${relay}?transport=${transport}`);
      await homeserver.start({ directory, logs, callserver: "http://127.0.0.1:9", relay: { uris, secret } });
      const secrets = [randomBytes(24).toString("hex"), secret]; // the homeserver still has the old one
      await serve(here, "callserver", [], { ports, relay: `{udp_port: ${relay}, tcp_port: ${relay}, secrets: [${secrets}], relay_ports: 20000-29999}` });
      const users = [];
      for (const name of ["alice", "bob"]) users.push(await homeserver.register(name, `${name}-password`));
      room = await users[0].createRoom({ name: "two", encrypted: false, invite: [users[1]] });
      await users[1].join(room);
      [alice, bob] = await Promise.all(users.map((user) => LegacyClient.open(browser, user, { relay: true, logs })));
    });
    after(async () => {
      for (const client of [alice, bob]) await client?.report("turn");
      for (const client of [alice, bob]) await client?.close();
      await here?.homeserver.stop();
      if (here) await rm(here.directory, { recursive: true, force: true });
    });

    test("both hear and see, from relay to relay", async () => {
      await alice.place({ room });
      await bob.becomes("ringing");
      await bob.answer();
      await alice.becomes("connected");
      for (const { path } of await Promise.all([alice.receives(), bob.receives()])) {
        assert.deepEqual([path.local, path.remote], ["relay", "relay"], JSON.stringify(path));
      }
      const metrics = await (await fetch(`http://127.0.0.1:${admin}/metrics`)).text();
      const [, packets] = /^callserver_relay_packets_total\{direction="up",kind="homeserver"\} (\d+)$/m.exec(metrics);
      assert.ok(packets > 50, `${packets} packets were relayed`);
      await bob.hangup();
      await alice.becomes("ended");
    });
  });
}
