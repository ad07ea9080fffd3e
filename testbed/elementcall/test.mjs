// Element Call in its matrix_2_0 mode: memberships are sticky events, and
// participants have hashed names. Synapse only: Dendrite has no sticky events.
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { outputs } from "../process/cache.mjs";
import { stopAll, stopOnSignals } from "../process/process.mjs";
import { peer } from "../homeservers/homeserver.mjs";
import { Stack } from "../stack/stack.mjs";
import { busyMachine, launch } from "./call.mjs";
import { expectMedia } from "./media.mjs";
import { expectEncryption, expectTiles, Meeting } from "./meeting.mjs";
import { expectHashedParticipants, expectNoStickyMember, expectStickyMembers } from "./membership.mjs";
import { widgetHost } from "./widget/bundle.mjs";

// In an encrypted room Element Call is a widget, as in Element Web: memberships are encrypted there, and Element Call 0.26.1 by itself
// does not wait for their decryption.
const cases = {
  "unencrypted room": { encrypted: false, widget: false },
  "encrypted room, as widget": { encrypted: true, widget: true },
};

const logs = join(outputs, "elementcall");
let browser;

stopOnSignals();
before(async () => {
  await rm(logs, { recursive: true, force: true });
  await mkdir(logs, { recursive: true });
  browser = await launch();
});
after(stopAll); // the browser, and what a start that failed left behind

describe("matrix_2_0 on synapse", () => {
  let stack;
  before(async () => {
    await (await peer("synapse")).prepare();
    const elementCall = { ...busyMachine, matrix_rtc_mode: "matrix_2_0" };
    stack = await Stack.start({ kind: "synapse", logs, names: ["alice", "bob", "carol"], rooms: cases, widget: await widgetHost(), elementCall });
  });
  after(() => stack?.stop());

  for (const [name, { encrypted, widget }] of Object.entries(cases)) {
    test(`three users decode each other: ${name}`, async (t) => {
      const seats = stack.users.map((user) => ({ user, stack }));
      const meeting = await Meeting.create(browser, seats, { logs, widget, tell: (text) => t.diagnostic(text) });
      meeting.move(`sticky-${encrypted ? "encrypted" : "unencrypted"}`, stack.rooms[name]);
      await meeting.play(async ({ calls, room }) => {
        await meeting.open();
        await meeting.join();
        await expectHashedParticipants(stack, calls, room);
        if (!encrypted) await expectStickyMembers(stack, calls, room);
        await expectMedia(calls, (text) => meeting.tell(text));
        await expectEncryption(calls, encrypted);
        const [leaving, ...others] = calls.toReversed();
        await leaving.leave();
        for (const call of others) await expectTiles(call, others);
        if (!encrypted) await expectNoStickyMember(stack, leaving, room);
      });
      await meeting.close();
    });
  }
});
