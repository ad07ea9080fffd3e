// The check: three Element Call users in one call, four times: encrypted or
// not, standalone or as widget. It measures what each of them receives and
// reads the membership events at the homeserver.
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { busyMachine, Call, eventually, launch, PATIENCE_MS } from "../elementcall/call.mjs";
import { widgetHost } from "../elementcall/widget/bundle.mjs";
import { outputs, say } from "../process/cache.mjs";
import { Stack } from "../stack/stack.mjs";
import { expectMedia, expectScreenShare } from "./media.mjs";
import { expectMembers, expectNoMember } from "./membership.mjs";

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
      const calls = await Promise.all(stack.users.map((user) => Call.create(browser, user, { widget, logs })));
      for (const [room, { encrypted }] of Object.entries(rooms)) {
        const label = `${widget ? "widget" : "standalone"}-${room}`;
        await Promise.race([
          callOnce({ stack, calls, room: stack.rooms[room], encrypted, label, times }),
          stack.callserver.exited.then((how) => Promise.reject(new Error(`callserver ${how}; see ${stack.callserver.log}`))),
        ]);
      }
      await Promise.all(calls.map((call) => call.close()));
    }
  } finally {
    await browser.close();
    await stack.stop();
  }
  printTimes(times);
  say(`OK: four calls of three users on ${kind} in ${Math.round((Date.now() - started) / 1000)} s`);
}

async function callOnce({ stack, calls, room, encrypted, label, times }) {
  say(`${label}: three users join`);
  try {
    await Promise.all(calls.map((call) => call.open(stack.site.link(call.user, { room, widget: call.widget }))));
    await joinAll(calls, label, times);
    await expectMembers(stack, calls, room);
    await expectMedia(calls, (text) => say(`${label}: ${text}`));
    await Promise.all(calls.map((call) => call.screenshot(label)));
    await expectEncryption(calls, encrypted);
    say(`${label}: everybody hears and sees both others for 10 s`);
    await muteShows(calls);
    say(`${label}: muted microphone and camera show on the others`);
    await screenShareArrives(calls);
    say(`${label}: the screen share arrives`);
    await leaveAll(stack, calls, room);
    say(`${label}: who leaves is gone`);
  } catch (error) {
    await Promise.all(calls.map((call) => call.report(label)));
    await stack.report(calls[0].logs);
    throw new Error(`${label}: ${error.message}\n  screenshots, consoles and logs: ${calls[0].logs}`, { cause: error });
  }
}

/** One after the other, so that each join's time is its own. */
async function joinAll(calls, label, times) {
  for (const [index, call] of calls.entries()) {
    await call.join();
    for (const present of calls.slice(0, index + 1)) await everyTile(present, calls.slice(0, index + 1));
    if (index === 0) continue;
    const { joined, firstFrame } = await eventually(`${call.name} sees the first remote picture`, PATIENCE_MS, async () => {
      const marks = await call.marks();
      return marks.firstFrame ? marks : undefined;
    });
    times.push({ label, name: call.name, ms: firstFrame - joined });
    say(`${label}: ${call.name} sees the first remote picture ${firstFrame - joined} ms after the click on Join`);
  }
}

/** Waits until the page shows a tile for each of these and for nobody else. */
function everyTile(call, calls) {
  const wanted = calls.map(({ name }) => name).sort();
  return eventually(`${call.name} shows the tiles of ${wanted.join(", ")}`, PATIENCE_MS, async (seen) => {
    // Who speaks may have a large tile besides the small one.
    const tiles = [...new Set((await call.tiles()).map(({ name }) => name))].sort();
    seen(tiles);
    return tiles.join() === wanted.join() ? true : undefined;
  });
}

function tileShows(call, name, what, wanted) {
  return eventually(`${call.name} sees ${name} with ${JSON.stringify(wanted)} ${what}`, PATIENCE_MS, async (seen) => {
    const tile = (await call.tiles()).find((tile) => tile.name === name);
    seen(tile);
    return tile && Object.entries(wanted).every(([key, value]) => tile[key] === value) ? true : undefined;
  });
}

/** Two tracks sent and four received each pass a transform when they are encrypted, and none otherwise. */
async function expectEncryption(calls, encrypted) {
  for (const call of calls) {
    const transforms = await call.transforms();
    if (encrypted ? transforms < 6 : transforms > 0) {
      throw new Error(`${call.name}: ${transforms} encrypted tracks in a room that is ${encrypted ? "" : "not "}encrypted`);
    }
  }
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
    for (const call of remaining) await everyTile(call, remaining);
    await expectNoMember(stack, leaving, room);
  }
}

function printTimes(times) {
  console.log("\nFrom the click on Join to the first remote picture:");
  for (const { label, name, ms } of times) console.log(`  ${label.padEnd(24)} ${name.padEnd(6)} ${ms} ms`);
}
