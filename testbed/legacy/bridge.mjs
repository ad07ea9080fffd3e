// Calls of before MatrixRTC in the call of the Matrix room: matrix-js-sdk's own
// 1:1 call stack on one side, two users of Element Call on the other, callserver between. Rooms for two are in dm.mjs.
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
import { isPainted, paint } from "./paint.mjs";
import { command, expectMembers, expectName, inviteBot, nameOf } from "./talk.mjs";

stopOnSignals();
let browser;
before(async () => (browser = await launch()));
after(stopAll);

/** The colours of their cameras. */
const colourOf = { alice: "red", bob: "blue" };

/** Waits until each Element Call shows and hears everybody, and the older client whoever speaks. */
const expectAll = (calls, carol, legacy) =>
  Promise.all([
    ...calls.map(async (call) => {
      await expectTiles(call, [...calls, carol]);
      await flowing(call, [...calls, carol]);
    }),
    legacy.receives(),
  ]);

/** Waits until an older client hears and sees one user, and was told the name. */
async function expectShown(legacy, user) {
  await legacy.becomes(({ identity }) => identity?.id === user.id && identity.displayName === user.name, `told that ${user.name} is on the line`);
  await eventually(`${legacy.user.name} sees ${user.name}`, PATIENCE_MS, async (seen) => {
    const pixel = await legacy.colour();
    seen(pixel);
    return isPainted(pixel, colourOf[user.name]) || undefined;
  });
  await legacy.receives();
}

/** Waits until a call shows the tile of a name with its sound and picture on or off. */
const expectTile = (call, { name }, { sound, picture }) =>
  eventually(`${call.name} sees that ${name} is ${sound ? "not " : ""}muted, camera ${picture ? "on" : "off"}`, PATIENCE_MS, async (seen) => {
    const tiles = (await call.tiles()).filter((tile) => tile.name === name);
    seen(tiles);
    return (tiles.length > 0 && tiles.every(({ muted, video }) => muted !== sound && video === picture)) || undefined;
  });

/** What one user's mutes do on the other side, both ways; everybody's sound and picture are on before and after. */
async function expectMutes(calls, carol, legacy) {
  const [alice, bob] = calls;
  await alice.toggleMicrophone();
  await expectShown(legacy, bob.user); // who is silent is not shown
  await bob.toggleMicrophone();
  await legacy.becomes(({ feeds }) => feeds.some(({ audioMuted }) => audioMuted), "told that nobody can be heard");
  await alice.toggleMicrophone();
  await expectShown(legacy, alice.user);
  await alice.toggleCamera();
  await eventually("the other's picture takes the place of none", PATIENCE_MS, async () => isPainted(await legacy.colour(), colourOf.bob) || undefined);
  await bob.toggleCamera();
  await legacy.becomes(({ feeds }) => feeds.some(({ audioMuted, videoMuted }) => videoMuted && !audioMuted), "told that there is no picture");
  for (const toggle of [() => bob.toggleMicrophone(), () => bob.toggleCamera(), () => alice.toggleCamera()]) await toggle();
  await legacy.becomes(({ feeds }) => feeds.every(({ audioMuted, videoMuted }) => !videoMuted && !audioMuted), "told that all is on");
  await legacy.muteAudio(true);
  await Promise.all(calls.map((call) => expectTile(call, carol, { sound: false, picture: true })));
  await legacy.muteVideo(true);
  await Promise.all(calls.map((call) => expectTile(call, carol, { sound: false, picture: false })));
  await legacy.muteAudio(false);
  await legacy.muteVideo(false);
  await Promise.all(calls.map((call) => expectTile(call, carol, { sound: true, picture: true })));
}

for (const kind of process.env.HOMESERVER?.split(",") ?? ["synapse", "dendrite"]) {
  describe(`the bridge at ${kind}`, () => {
    const logs = join(outputs, `bridge-${kind}`);
    let stack, alice, bob, carol, bot, room, call, other, legacy;
    /** How the bot is called in rooms otherwise. */
    let ownName;
    /** How carol is shown where it is the bot who is in the call. */
    const forCarol = { name: "carol (via callserver)" };
    before(async () => {
      await (await peer(kind)).prepare();
      await rm(logs, { recursive: true, force: true });
      await mkdir(logs, { recursive: true });
      stack = await Stack.start({
        kind,
        logs,
        names: ["alice", "bob", "carol"],
        rooms: { many: { encrypted: false }, sealed: { encrypted: true } },
        widget: await widgetHost(),
        elementCall: busyMachine,
        relay: true,
      });
      [alice, bob, carol] = stack.users;
      bot = { id: `@_callserver:${stack.homeserver.name}`, name: "_callserver" };
      room = stack.rooms.many;
      for (const where of [room, stack.rooms.sealed]) await inviteBot(alice, bot, where);
      ownName = await nameOf(alice, room, bot);
      legacy = await LegacyClient.open(browser, carol, { logs });
    });
    after(async () => {
      for (const page of [call, other, legacy]) await page?.report("bridge");
      await stack?.report(logs);
      for (const page of [call, other, legacy]) await page?.close();
      await stack?.stop();
    });

    /** Opens Element Call for alice and bob, and has both join. */
    async function meet(where, { widget = false } = {}) {
      for (const page of [call, other]) await page?.close();
      [call, other] = [await Call.create(browser, alice, { widget, logs }), await Call.create(browser, bob, { widget, logs })];
      for (const page of [call, other]) {
        await paint(page, colourOf[page.name]);
        await page.open(stack.site.link(page.user, { room: where, widget }));
        await page.join();
      }
    }

    test("through callserver's own TURN alone, and under the bot's name: who calls the bot is in the room's call", async (t) => {
      await meet(room);
      const relayed = await LegacyClient.open(browser, carol, { relay: true, logs });
      t.after(async () => {
        await relayed.report("relay");
        await relayed.close();
      });
      await relayed.place({ room });
      await relayed.becomes("connected");
      await expectAll([call, other], forCarol, relayed);
      await expectMembers(alice, room, [alice, bob, bot]);
      const { path } = await relayed.media();
      assert.deepEqual([path.local, path.url, path.port], ["relay", stack.relay.uris[0], stack.ports.udp], JSON.stringify(path));
      await eventually("over a hundred packets are relayed each way", PATIENCE_MS, async (seen) => {
        const metrics = await (await fetch(`${stack.adminURL}/metrics`)).text();
        const packets = ["up", "down"].map((way) => Number(new RegExp(`^callserver_relay_packets_total\\{direction="${way}",kind="homeserver"\\} (\\d+)$`, "m").exec(metrics)?.[1]));
        seen(packets);
        return packets.every((count) => count > 100) || undefined;
      });
      assert.match(await command(alice, room, `!call kick ${carol.id}`), /^Removed from the call: /);
      await relayed.becomes("ended");
      for (const page of [call, other]) await expectTiles(page, [call, other]);
      await expectMembers(alice, room, [alice, bob]);
      await expectName(alice, room, bot, ownName);
    });

    test("under the own name once agreed; all three hear and see each other", async () => {
      assert.match(await command(carol, room, "!call bridge me on"), /^You agreed/);
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectAll([call, other], carol, legacy);
      await expectMembers(alice, room, [alice, bob, carol]);
    });

    test("the older client follows who speaks; mutes are told both ways", () => expectMutes([call, other], carol, legacy));

    test("a hang-up ends it, and nothing is left", async () => {
      await legacy.hangup();
      for (const page of [call, other]) await expectTiles(page, [call, other]);
      await expectMembers(alice, room, [alice, bob]);
    });

    const removed = async (remove) => {
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectTiles(call, [call, other, carol]);
      await remove();
      await legacy.becomes("ended");
      await expectMembers(alice, room, [alice, bob]);
    };

    test("a moderator removes the caller from the call", () => removed(() => command(alice, room, `!call kick ${carol.id}`)));

    const short = !process.env.LONG && "only with LONG=1; the encrypted room has it always";
    test("a moderator removes the caller from the room", { skip: short }, async () => {
      await removed(() => alice.act("kick", carol, room));
      await alice.act("invite", carol, room);
      await carol.join(room);
      await legacy.page.waitForTimeout(1_000); // a room that was just joined: the page has to see it
    });

    test("who is left alone is hung up", async () => {
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectTiles(call, [call, other, carol]);
      for (const page of [call, other]) await page.leave();
      await legacy.becomes("ended");
      await expectMembers(alice, room, []);
      for (const page of [call, other]) await page.quit();
    });

    test("a callserver that is killed hangs up when it is back, and leaves nothing behind", async () => {
      await call.open(stack.site.link(alice, { room }));
      await call.join();
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectTiles(call, [call, carol]);
      stack.callserver.child.kill("SIGKILL");
      await stack.callserver.exited;
      await stack.startCallserver();
      await legacy.becomes("ended");
      await expectMembers(alice, room, [alice]);
    });

    test("in an encrypted room, switched on: all three hear and see each other, by the bot's device and keys", async () => {
      const { sealed } = stack.rooms;
      await legacy.close();
      legacy = await LegacyClient.open(browser, carol, { logs, keys: true });
      await meet(sealed, { widget: true });
      await command(alice, sealed, "!call bridge on");
      await legacy.place({ room: sealed });
      await legacy.becomes("connected");
      await expectAll([call, other], forCarol, legacy);
      await expectMembers(alice, sealed, [alice, bob, bot]);
    });

    test("there, too, mutes are told both ways", () => expectMutes([call, other], forCarol, legacy));

    test("there, too, a hang-up and a removal end it, and nothing is left", async () => {
      const { sealed } = stack.rooms;
      await legacy.hangup();
      for (const page of [call, other]) await expectTiles(page, [call, other]);
      await expectMembers(alice, sealed, [alice, bob]);
      await legacy.place({ room: sealed });
      await legacy.becomes("connected");
      await expectAll([call, other], forCarol, legacy);
      await alice.act("kick", carol, sealed);
      await legacy.becomes("ended");
      await expectMembers(alice, sealed, [alice, bob]);
      for (const page of [call, other]) await page.leave();
      await expectMembers(alice, sealed, []);
      await expectName(alice, sealed, bot, ownName);
    });
  });
}
