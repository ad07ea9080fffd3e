// Calls by matrix-js-sdk's own 1:1 call stack (m.call.*) in Chromium, between two such pages at each homeserver: what
// everything that bridges these calls is measured by.
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { after, before, describe, test } from "node:test";

import { launch } from "../elementcall/call.mjs";
import { ground } from "../homeservers/ground.mjs";
import { stopAll, stopOnSignals } from "../process/process.mjs";
import { LegacyClient } from "./client.mjs";

stopOnSignals();
let browser;
before(async () => (browser = await launch()));
after(stopAll);

for (const kind of process.env.HOMESERVER?.split(",") ?? ["synapse", "dendrite"]) {
  describe(`two legacy clients at ${kind}`, () => {
    let here, room, alice, bob;
    before(async () => {
      here = await ground(kind, "legacy");
      const { homeserver, directory, logs } = here;
      await homeserver.start({ directory, logs, callserver: "http://127.0.0.1:9" });
      const users = [];
      for (const name of ["alice", "bob"]) users.push(await homeserver.register(name, `${name}-password`));
      room = await users[0].createRoom({ name: "two", encrypted: false, invite: [users[1]] });
      await users[1].join(room);
      [alice, bob] = await Promise.all(users.map((user) => LegacyClient.open(browser, user, { logs })));
    });
    after(async () => {
      for (const client of [alice, bob]) await client?.report("legacy");
      for (const client of [alice, bob]) await client?.close();
      await here?.homeserver.stop();
      if (here) await rm(here.directory, { recursive: true, force: true });
    });

    test("answer: both hear and see; mute and hang-up arrive", async () => {
      await alice.place({ room });
      await bob.becomes("ringing");
      await bob.answer();
      await alice.becomes("connected");
      await Promise.all([alice.receives(), bob.receives()]);
      await alice.muteAudio(true);
      await bob.becomes(({ feeds }) => feeds[0]?.audioMuted, "told of the mute");
      await bob.hangup();
      const { reason } = await alice.becomes("ended");
      assert.equal(reason, "user_hangup");
    });

    test("reject: the caller hears of it", async () => {
      await bob.place({ room, video: false });
      await alice.becomes(({ state, incoming }) => incoming && state === "ringing", "ringing");
      await alice.reject();
      await bob.becomes("ended");
    });
  });
}
