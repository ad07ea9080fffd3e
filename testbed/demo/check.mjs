// The check: three Element Call users in one call, four times: encrypted or
// not, standalone or as widget. It measures what each of them receives and
// reads the membership events at the homeserver.
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { busyMachine, launch, PATIENCE_MS } from "../elementcall/call.mjs";
import { expectMedia, expectScreenShare } from "../elementcall/media.mjs";
import { expectEncryption, expectTiles, Meeting } from "../elementcall/meeting.mjs";
import { expectMembers, expectNoMember } from "../elementcall/membership.mjs";
import { widgetHost } from "../elementcall/widget/bundle.mjs";
import { outputs, say } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { Stack } from "../stack/stack.mjs";

const rooms = { encrypted: { encrypted: true }, unencrypted: { encrypted: false } };

/** Runs the whole check; throws at the first thing that is not right. */
export async function check({ kind, names }) {
  const logs = join(outputs, `check-${kind}`);
  await rm(logs, { recursive: true, force: true });
  await mkdir(logs, { recursive: true });
  const started = Date.now();
  const stack = await Stack.start({ kind, logs, names, rooms, widget: await widgetHost(), elementCall: busyMachine });
  const browser = await launch();
  const times = [];
  try {
    for (const widget of [false, true]) {
      const seats = stack.users.map((user) => ({ user, stack }));
      const meeting = await Meeting.create(browser, seats, { logs, widget, tell: say });
      for (const [room, { encrypted }] of Object.entries(rooms)) {
        meeting.move(`${widget ? "widget" : "standalone"}-${room}`, stack.rooms[room]);
        await meeting.play(() => callOnce(meeting, stack, encrypted));
      }
      times.push(...meeting.times);
      await meeting.close();
    }
  } finally {
    await browser.close();
    await stack.stop();
  }
  printTimes(times);
  say(`OK: four calls of three users on ${kind} in ${Math.round((Date.now() - started) / 1000)} s`);
}

async function callOnce(meeting, stack, encrypted) {
  const { calls, label, room } = meeting;
  meeting.tell("three users join");
  await meeting.open();
  await meeting.join();
  await expectMembers(stack, calls, room);
  await expectMedia(calls, (text) => meeting.tell(text));
  await Promise.all(calls.map((call) => call.screenshot(label)));
  await expectEncryption(calls, encrypted);
  meeting.tell("everybody hears and sees both others for 10 s");
  await muteShows(calls);
  meeting.tell("muted microphone and camera show on the others");
  await screenShareArrives(calls);
  meeting.tell("the screen share arrives");
  await leaveAll(stack, calls, room);
  meeting.tell("who leaves is gone");
}

function tileShows(call, name, what, wanted) {
  return eventually(`${call.name} sees ${name} with ${JSON.stringify(wanted)} ${what}`, PATIENCE_MS, async (seen) => {
    const tile = (await call.tiles()).find((tile) => tile.name === name);
    seen(tile);
    return tile && Object.entries(wanted).every(([key, value]) => tile[key] === value) ? true : undefined;
  });
}

async function muteShows([muting, ...others]) {
  const shown = (what, wanted) => Promise.all(others.map((other) => tileShows(other, muting.name, what, wanted)));
  await shown("before muting", { muted: false, video: true });
  await muting.toggleMicrophone();
  await shown("after muting", { muted: true, video: true });
  await muting.toggleMicrophone();
  await shown("after unmuting", { muted: false });
  await muting.toggleCamera();
  await shown("after the camera was switched off", { video: false });
  await muting.toggleCamera();
  await shown("after the camera was switched on", { video: true });
}

async function screenShareArrives([first, sharing, third]) {
  await sharing.toggleScreenShare();
  await Promise.all([first, third].map((call) => expectScreenShare(call, sharing.name, true)));
  await sharing.toggleScreenShare();
  await Promise.all([first, third].map((call) => expectScreenShare(call, sharing.name, false)));
}

async function leaveAll(stack, calls, room) {
  const remaining = [...calls];
  while (remaining.length > 0) {
    const leaving = remaining.pop();
    await leaving.leave();
    for (const call of remaining) await expectTiles(call, remaining);
    await expectNoMember(stack, leaving, room);
  }
}

function printTimes(times) {
  console.log("\nFrom the click on Join to the first remote picture:");
  for (const { label, name, ms } of times) console.log(`  ${label.padEnd(24)} ${name.padEnd(6)} ${ms} ms`);
}
