// Nobody stays as a ghost, in short: real Element Calls whose browser is killed, whose callserver is killed, and whose
// homeserver stops, on both homeservers at once, since most of it is waiting. The long form is main.mjs.
import assert from "node:assert/strict";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, describe, test } from "node:test";

import { launchMortal, PATIENCE_MS } from "../elementcall/call.mjs";
import { peer } from "../homeservers/homeserver.mjs";
import { npmPackages, outputs } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { stopAll } from "../process/process.mjs";
import { Stack } from "../stack/stack.mjs";
import { DEATH_MS, Haunt, RESTART_MS } from "./haunt.mjs";
import { outage } from "./outage.mjs";

await npmPackages();
after(stopAll); // what a start that failed left behind

async function fresh(name) {
  const logs = join(outputs, name);
  await rm(logs, { recursive: true, force: true });
  await mkdir(logs, { recursive: true });
  return logs;
}

/** HOMESERVER picks one. */
const kinds = process.env.HOMESERVER ? [process.env.HOMESERVER] : ["synapse", "dendrite"];

describe("ghosts", { concurrency: 2 }, () => {
  for (const kind of kinds) {
    test(`on ${kind} nobody who is gone stays, and nobody who is here goes`, async (t) => {
      await (await peer(kind)).prepare();
      const haunt = await Haunt.start({ kind, logs: await fresh(`ghosts-${kind}`), rooms: 1, mortals: 3 });
      try {
        await scenario(haunt, (text) => t.diagnostic(`${kind}: ${text}`));
      } catch (error) {
        throw await haunt.explained(error, "ghosts");
      } finally {
        await haunt.stop();
      }
    });
  }

  if (!kinds.includes("synapse")) return; // what follows needs delayed events

  test("a homeserver that allows no delay of an hour: clients keep their leaves", async () => {
    await (await peer("synapse")).prepare();
    const logs = await fresh("ghosts-short-delay");
    const stack = await Stack.start({ kind: "synapse", logs, names: ["alice", "bob"], rooms: { here: {} }, maxDelay: "10m" });
    try {
      await stack.callserver.line(/delayed leaves cannot be delegated.*DELAY_TOO_LARGE/);
      const probe = await fetch(`${stack.serviceURL}/delegate_delayed_leave`, { method: "POST" });
      assert.equal(probe.status, 404);
    } finally {
      await stack.stop();
    }
  });

  test("a delay id of someone else is refused", async () => {
    await (await peer("synapse")).prepare();
    const stack = await Stack.start({ kind: "synapse", logs: await fresh("ghosts-foreign"), names: ["alice", "bob"], rooms: { here: {} } });
    try {
      await stack.callserver.line(/delayed leaves can be delegated/);
      const [alice, bob] = stack.users;
      const room = stack.rooms.here;
      const schedule = (user, key) =>
        user.request("PUT", `v3/rooms/${encodeURIComponent(room)}/state/${key}?org.matrix.msc4140.delay=3600000`, {});
      const member = (user) => `org.matrix.msc3401.call.member/${encodeURIComponent(`_${user.id}_${user.device}_m.call`)}`;
      const delegate = async (user, delay) => {
        const body = { room, openid_token: await user.openID(), device_id: user.device, delay_id: delay, delay_timeout: 3_600_000 };
        const response = await fetch(`${stack.serviceURL}/sfu/get`, { method: "POST", body: JSON.stringify(body) });
        return [response.status, (await response.json()).errcode];
      };
      const { delay_id: mine } = await schedule(alice, member(alice));
      const { delay_id: other } = await schedule(alice, "org.example.other/x");
      assert.deepEqual(await delegate(bob, mine), [400, "M_INVALID_PARAM"], "alice's leave, by bob");
      assert.deepEqual(await delegate(alice, other), [400, "M_INVALID_PARAM"], "another event of alice's");
      assert.deepEqual(await delegate(alice, "syd_madeup"), [400, "M_INVALID_PARAM"], "an id that nobody has");
      assert.deepEqual(await delegate(alice, mine), [200, undefined], "alice's leave, by alice");
    } finally {
      await stack.stop();
    }
  });
});

async function scenario(haunt, tell) {
  const [room] = haunt.rooms;
  const [anna, ben, carl] = room.mortals;
  await haunt.ready();
  const [victims, others] = [await launchMortal(), await launchMortal()];
  const witness = await haunt.join(haunt.house.browser, room.witness, room);
  const [first, second] = await Promise.all([
    haunt.join(haunt.house.browser, anna, room),
    haunt.join(victims.browser, ben, room),
  ]);
  for (const call of [witness, first, second]) await haunt.hears(call);
  tell("three hear each other");
  await haunt.showAccessTokens(room);
  await comeAndGo(haunt, first, tell);

  // The leaves that were delegated before would end the membership about now, were they not cancelled.
  const third = haunt.join(others.browser, carl, room);
  let since = await haunt.kill(victims, [second]);
  tell(`a client was killed: gone after ${await haunt.gone([second], { since, within: DEATH_MS })} ms`);
  await haunt.notBounced([witness, first]);

  haunt.calls.delete(await third);
  since = await haunt.killCallserver(others);
  for (const call of [witness, first]) await haunt.hears(call);
  const ended = await haunt.gone([await third], { since, within: RESTART_MS });
  tell(`callserver was killed: who did not return was gone ${ended} ms after it was ready`);
  await haunt.notBounced([witness, first]);

  if (haunt.delegates) {
    const back = await outage(haunt, { stays: [witness], leaves: first, ms: 20_000, leaveAfter: 12_000, tell });
    tell(`what was owed was sent ${back} ms after the homeserver's return`);
  }
  await haunt.notBounced([witness]);
  await haunt.keptSecrets();
}

/** A client leaves, comes back, is loaded again, crashes, comes back, and callserver restarts: it is a member all the time that it is there. */
async function comeAndGo(haunt, call, tell) {
  const since = Date.now();
  await call.leave();
  tell(`a client left by itself: gone after ${await haunt.gone([call], { since, within: DEATH_MS })} ms`);
  await haunt.enter(call);
  await haunt.enter(call); // as a reload does
  if (!haunt.delegates) return;
  await haunt.crash(call);
  await haunt.enter(call);
  // Its membership may be there before its media: a client whose first connection fails gives the call up.
  await haunt.hears(call);
  await haunt.restartCallserver();
  await haunt.hears(call);
  await haunt.notBounced([call]);
  await eventually("callserver holds the leaves", PATIENCE_MS, async () => ((await haunt.probe()) === 404 ? undefined : true));
  tell("loaded again, crashed and back, callserver restarted: still a member");
}
