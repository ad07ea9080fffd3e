// Calls of before MatrixRTC in the call of the Matrix room: matrix-js-sdk's own
// 1:1 call stack on one side, Element Call on the other, callserver between.
import assert from "node:assert/strict";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { busyMachine, Call, launch, PATIENCE_MS } from "../elementcall/call.mjs";
import { flowing } from "../elementcall/media.mjs";
import { expectTiles } from "../elementcall/meeting.mjs";
import { peer } from "../homeservers/homeserver.mjs";
import { eventually } from "../process/eventually.mjs";
import { outputs } from "../process/cache.mjs";
import { stopAll, stopOnSignals } from "../process/process.mjs";
import { Stack } from "../stack/stack.mjs";
import { widgetHost } from "../elementcall/widget/bundle.mjs";
import { LegacyClient } from "./client.mjs";
import { command, expectMembers, inviteBot, say } from "./talk.mjs";

stopOnSignals();
let browser;
before(async () => (browser = await launch()));
after(stopAll);

for (const kind of process.env.HOMESERVER?.split(",") ?? ["synapse", "dendrite"]) {
  describe(`the bridge at ${kind}`, () => {
    const logs = join(outputs, `bridge-${kind}`);
    let stack, alice, bob, carol, bot, room, call, legacy;
    before(async () => {
      await (await peer(kind)).prepare();
      await rm(logs, { recursive: true, force: true });
      await mkdir(logs, { recursive: true });
      stack = await Stack.start({ kind, logs, names: ["alice", "bob", "carol"], rooms: { many: { encrypted: false }, sealed: { encrypted: true } }, widget: await widgetHost(), elementCall: busyMachine });
      [alice, bob, carol] = stack.users;
      bot = { id: `@_callserver:${stack.homeserver.name}`, name: "_callserver" };
      room = stack.rooms.many;
      await inviteBot(alice, bot, room);
      call = await Call.create(browser, alice, { widget: false, logs });
      legacy = await LegacyClient.open(browser, carol, { logs });
    });
    after(async () => {
      await call?.report("bridge");
      await legacy?.report("bridge");
      await stack?.report(logs);
      await call?.close();
      await legacy?.close();
      await stack?.stop();
    });

    test("who calls the bot is in the room's call, under the own name once agreed", async () => {
      assert.match(await command(carol, room, "!call bridge me on"), /^You agreed/);
      await call.open(stack.site.link(alice, { room }));
      await call.join();
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectTiles(call, [alice, carol]);
      await expectMembers(alice, room, [alice, carol]);
      await Promise.all([flowing(call, [call, carol]), legacy.receives()]);
    });

    test("mute is told both ways, and who is on the line", async () => {
      await legacy.becomes(({ identity }) => identity?.id === alice.id, "told who speaks");
      await call.toggleMicrophone();
      await legacy.becomes(({ feeds }) => feeds.some(({ audioMuted }) => audioMuted), "told of the mute");
      await call.toggleMicrophone();
      await legacy.becomes(({ feeds }) => feeds.every(({ audioMuted }) => !audioMuted), "told of the unmute");
      await legacy.muteAudio(true);
      await eventually("carol's microphone is muted in the room", PATIENCE_MS, async (seen) => {
        const [participant] = (await stack.participants(room)).filter(({ identity }) => identity.startsWith(carol.id));
        seen(participant?.tracks);
        return participant?.tracks?.some(({ type, muted }) => muted && type !== "VIDEO") || undefined;
      });
    });

    test("a hang-up ends it, and nothing is left", async () => {
      await legacy.hangup();
      await expectTiles(call, [alice]);
      await expectMembers(alice, room, [alice]);
    });

    test("a moderator removes the caller", async () => {
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectTiles(call, [alice, carol]);
      await command(alice, room, `!call kick ${carol.id}`);
      await legacy.becomes("ended");
      await expectMembers(alice, room, [alice]);
    });

    test("a callserver that is killed hangs up when it is back, and leaves nothing behind", async () => {
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectTiles(call, [alice, carol]);
      stack.callserver.child.kill("SIGKILL");
      await stack.callserver.exited;
      await stack.startCallserver();
      await legacy.becomes("ended");
      await expectMembers(alice, room, [alice]);
    });

    test("in an encrypted room, switched on, the bot's device is in the call, with keys", async () => {
      await call.leave();
      await call.close();
      const sealed = stack.rooms.sealed;
      await inviteBot(alice, bot, sealed);
      const page = await LegacyClient.open(browser, bob, { logs, keys: true });
      call = await Call.create(browser, alice, { widget: true, logs });
      await call.open(stack.site.link(alice, { room: sealed, widget: true }));
      await call.join();
      await say(alice, sealed, "!call bridge on");
      await page.page.waitForTimeout(3_000);
      await page.place({ room: sealed });
      await page.becomes("connected");
      await expectTiles(call, [alice, bot]);
      await Promise.all([flowing(call, [call, bot]), page.receives()]);
      await page.hangup();
      await expectMembers(alice, sealed, [alice]);
      await page.report("sealed");
      await page.close();
    });
  });
}
