// callserver's bot in an encrypted room, at real homeservers and before a real
// client that gives keys to signed devices only: it reads commands and answers
// them encrypted, also after it was killed, and after its keys were lost, which
// it says.
import assert from "node:assert/strict";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { eventually } from "../process/eventually.mjs";
import { freePorts, run, stopAll } from "../process/process.mjs";
import { Client } from "./client.mjs";
import { ground, serve } from "./ground.mjs";

/** Milliseconds until a homeserver has pushed an event, its key has arrived, and the bot's answer can be read. */
const PATIENCE_MS = 30_000;

after(stopAll); // what a start that failed left behind

/** Has a stopped Dendrite forget what signs the devices of a user, as docs/operator/bot.md says. */
async function forgetSigningKeys(directory, user) {
  const forget = `
import glob, sqlite3, sys
for name in glob.glob(sys.argv[1] + "/*.db"):
    with sqlite3.connect(name) as db:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'keyserver_cross_signing_keys'").fetchone():
            print(db.execute("DELETE FROM keyserver_cross_signing_keys WHERE user_id = ?", [sys.argv[2]]).rowcount)
`;
  assert.match(await run(["python3", "-c", forget, directory, user]), /^[1-9]/m);
}

for (const kind of ["dendrite", "synapse"]) {
  describe(`the bot in an encrypted room at ${kind}`, () => {
    let here, ports, narrow, callserver, alice, client, room, bot;

    const begin = async (name) => {
      const data = join(here.directory, "callserver.db");
      ({ callserver } = await serve(here, name, [narrow], { ports, data, more: "log: {level: debug}\n" }));
    };

    /** The bot's devices, as alice sees them. */
    const devices = async () => {
      const { device_keys: keys } = await alice.request("POST", "v3/keys/query", { device_keys: { [bot.id]: [] } });
      return Object.values(keys[bot.id] ?? {});
    };

    before(async () => {
      here = await ground(kind, "sealed");
      const { homeserver, directory, logs } = here;
      ports = await freePorts(4);
      ({ narrow } = await homeserver.registrations(directory, `http://127.0.0.1:${ports[0]}`));
      await homeserver.start({ directory, logs, callserver: `http://127.0.0.1:${ports[0]}`, registrations: [narrow] });
      bot = { id: `@_callserver:${homeserver.name}` };
      alice = await homeserver.register("alice", "alice-password");
      await begin("first");
      client = await Client.start(alice);
      room = await alice.createRoom({ name: "sealed", encrypted: true, invite: [bot] });
      await callserver.line(/encryption is ready.*signed=true/);
      await eventually("the bot is in the room", PATIENCE_MS, async () => {
        const members = await alice.state(room, "m.room.member");
        return members.some(({ state_key, content }) => state_key === bot.id && content.membership === "join") || undefined;
      });
    });
    after(async () => {
      client?.stop();
      await callserver?.stop();
      await here?.homeserver.stop();
      if (here) await rm(here.directory, { recursive: true, force: true });
    });

    test("a command is read, and answered encrypted, in its thread", async () => {
      const answer = await client.ask(room, "!call help", PATIENCE_MS);
      assert.equal(answer.getSender(), bot.id);
      assert.equal(answer.getWireType(), "m.room.encrypted");
      assert.match(answer.getContent().body, /^- !call status: /m);
      assert.equal(answer.getWireContent()["m.relates_to"].rel_type, "m.thread");
    });

    test("killed, it answers afterwards what was said meanwhile", async () => {
      await callserver.kill();
      const [before] = await devices();
      const asking = client.ask(room, "!call status", 2 * PATIENCE_MS);
      await begin("second");
      const answer = await asking;
      assert.match(answer.getContent().body, /^Nobody is in a call/);
      assert.deepEqual((await devices()).map(({ device_id }) => device_id), [before.device_id], "the device is the same");
      await client.ask(room, "!call help", PATIENCE_MS);
    });

    test("without its keys it says so, and answers with a new device, as well signed", async () => {
      await callserver.stop();
      const [before] = await devices();
      for (const name of await readdir(here.directory)) {
        if (name.startsWith("callserver.db")) await rm(join(here.directory, name));
      }
      await begin("third");
      await callserver.line(/a new device takes the place of the former/);
      await callserver.line(/encryption is ready.*new=true signed=true/);
      await client.heard("the bot's confession", room, PATIENCE_MS, (event) => /^My keys were lost/.test(event.getContent().body));
      const now = await devices();
      assert.equal(now.length, 1, "the former device is gone");
      assert.notEqual(now[0].device_id, before.device_id);
      await client.ask(room, "!call help", PATIENCE_MS);
    });

    test("without the key of its keys it does the same", async () => {
      await callserver.stop();
      await rm(join(here.directory, "callserver.db.key"));
      await begin("fourth");
      await callserver.line(/a new device takes the place of the former/);
      await client.ask(room, "!call help", PATIENCE_MS);
    });

    test("without its recovery key it is signed again as docs/operator/bot.md says", async () => {
      await callserver.stop();
      for (const name of ["callserver.db", "recovery-keys"]) await rm(join(here.directory, name));
      await begin("fifth");
      if (kind === "dendrite") {
        await callserver.line(/the device is not signed/);
        await callserver.stop();
        await here.homeserver.pause();
        await forgetSigningKeys(join(here.directory, kind), bot.id);
        await here.homeserver.resume();
        await begin("sixth");
      }
      await callserver.line(/encryption is ready.*signed=true/);
    });
  });
}
