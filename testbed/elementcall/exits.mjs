// Element Call while somebody is kicked or banned, or leaves the Matrix room.
//
//   node testbed/elementcall/exits.mjs          LONG=1 for every way out with every privilege
import assert from "node:assert/strict";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { peer } from "../homeservers/homeserver.mjs";
import { outputs } from "../process/cache.mjs";
import { stopAll, stopOnSignals } from "../process/process.mjs";
import { Stack } from "../stack/stack.mjs";
import { busyMachine, launch } from "./call.mjs";
import { expectMedia } from "./media.mjs";
import { Meeting } from "./meeting.mjs";
import { expectRefused, remove, TOLD_MS } from "./removal.mjs";

/** How somebody leaves a room, and how they may come back: alice decides, bob goes. */
const exits = {
  kick: { out: (alice, bob, room) => alice.act("kick", bob, room) },
  ban: { out: (alice, bob, room) => alice.act("ban", bob, room), pardon: (alice, bob, room) => alice.act("unban", bob, room) },
  leave: { out: (alice, bob, room) => bob.leave(room) },
};
/** What callserver may do at the homeserver, and how somebody leaves. */
const cases = process.env.LONG
  ? ["dendrite", "synapse"].flatMap((kind) => ["wide", "narrow"].map((privilege) => ({ kind, privilege, ways: Object.keys(exits) })))
  : [
      { kind: "dendrite", privilege: "wide", ways: ["ban"] },
      { kind: "synapse", privilege: "narrow", ways: ["kick", "leave"] },
    ];

/** Media that flow for so long are flowing; how steadily is the business of other tests. */
const SHORT_SECONDS = 4;

const logs = join(outputs, "exits");
let browser;

stopOnSignals();
before(async () => {
  await rm(logs, { recursive: true, force: true });
  await mkdir(logs, { recursive: true });
  browser = await launch();
});
after(stopAll); // the browser, and what a start that failed left behind

for (const { kind, privilege, ways } of cases) {
  describe(`${kind}, ${privilege === "narrow" ? "sender in the room" : "wide registration"}`, () => {
    const directory = join(logs, `${kind}-${privilege}`);
    let stack, alice, bob, meeting;
    before(async () => {
      await (await peer(kind)).prepare();
      const rooms = { call: { encrypted: false } };
      stack = await Stack.start({ kind, logs: directory, names: ["alice", "bob"], rooms, privileges: [privilege], elementCall: busyMachine });
      [alice, bob] = stack.users;
      if (privilege === "narrow") await stack.homeserver.joinSender(stack.registrations.narrow, alice, stack.rooms.call);
      meeting = await Meeting.create(browser, [{ user: alice, stack }, { user: bob, stack }], { logs: directory });
      meeting.move("both", stack.rooms.call);
      await meeting.play(async () => {
        await meeting.open();
        await meeting.join();
      });
    });
    after(async () => {
      await meeting?.close();
      await stack?.stop();
    });

    for (const way of ways) {
      test(`${way}: media stop, and start again only after joining anew`, async (t) => {
        meeting.print = (text) => t.diagnostic(text);
        meeting.move(way, stack.rooms.call);
        const { out, pardon } = exits[way];
        await meeting.play(async ({ calls, room }) => {
          const gone = calls[1];
          await expectMedia(calls, (text) => meeting.tell(text), SHORT_SECONDS);
          const took = await remove(meeting, gone, stack, () => out(alice, bob, room));
          assert.ok(took < TOLD_MS, `bytes arrived ${took} ms after ${way}`);
          await expectRefused(gone, stack, room);
          await gone.quit();
          await pardon?.(alice, bob, room);
          await expectRefused(gone, stack, room);
          await alice.act("invite", bob, room);
          await expectRefused(gone, stack, room);
          await bob.join(room);
          await gone.open(stack.site.link(bob, { room }));
          await gone.join();
          await expectMedia(calls, (text) => meeting.tell(text), SHORT_SECONDS);
        });
      });
    }
  });
}
