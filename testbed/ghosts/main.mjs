// Ghosts, in long: `make long PART=ghosts`. On each homeserver ten rooms, a witness in three of them, and ten rounds in which
// ten Element Calls are killed, up to all at once, and callserver with one more. HOMESERVER=synapse or dendrite runs one of the two,
// ROUNDS, ROOMS and WITNESSES less of it, or more: two cores carry a dozen calls and no witness in each room. With
// OUTAGE=SECONDS it is the outage in place of the rounds: `make long PART=outage`.
import assert from "node:assert/strict";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { launchMortal } from "../elementcall/call.mjs";
import { peer } from "../homeservers/homeserver.mjs";
import { npmPackages, outputs, say } from "../process/cache.mjs";
import { stopAll } from "../process/process.mjs";
import { DEATH_MS, each, Haunt, RESTART_MS } from "./haunt.mjs";
import { outage } from "./outage.mjs";

const number = (name, otherwise) => Number(process.env[name] || otherwise);

/** What was counted on one homeserver; times are the slowest, in ms. */
const tally = () => ({ clients: 0, atOnce: 0, slowestClient: 0, callservers: 0, slowestReturn: 0, seconds: 0 });

async function haunted(kind, name, options, work) {
  await (await peer(kind)).prepare();
  const logs = join(outputs, `${name}-${kind}`);
  await rm(logs, { recursive: true, force: true });
  await mkdir(logs, { recursive: true });
  const haunt = await Haunt.start({ kind, logs, ...options });
  try {
    await haunt.ready();
    await haunt.showAccessTokens(haunt.rooms[0]);
    const result = await work(haunt, (text) => say(`${kind}: ${text}`));
    await haunt.keptSecrets();
    return result;
  } catch (error) {
    const { message } = await haunt.explained(error, name);
    throw new Error(`${kind}: ${message}`, { cause: error });
  } finally {
    await haunt.stop();
  }
}

/** Ten rounds, then everybody leaves: no membership and no delayed event may be left. */
async function rounds(haunt, tell) {
  const started = Date.now();
  const sums = tally();
  const witnesses = await each(haunt.rooms.slice(0, number("WITNESSES", 3)), (room) => haunt.join(haunt.house.browser, room.witness, room));
  tell(`${witnesses.length} witnesses are in their calls`);
  const count = number("ROUNDS", 10);
  const come = (rooms, gate) => arrive(haunt, rooms, witnesses, gate);
  let here = await come(groups(haunt.rooms, 1)[0]);
  for (let n = 1; n <= count; n++) {
    const [, ...others] = groups(haunt.rooms, n);
    const next = n < count ? groups(haunt.rooms, n + 1)[0] : [];
    here = await round(haunt, { witnesses, here, others, next, come, last: haunt.rooms[n % haunt.rooms.length], sums, tell: (text) => tell(`round ${n}: ${text}`) });
  }
  await each(witnesses, (call) => call.leave());
  await haunt.gone(witnesses, { since: Date.now(), within: DEATH_MS });
  for (const { id, witness, mortals } of haunt.rooms) {
    const left = (await witness.state(id, "org.matrix.msc3401.call.member")).filter(({ content }) => Object.keys(content).length > 0);
    assert.deepEqual(left, [], "a ghost is left at the end");
    if (!haunt.delegates) continue;
    for (const user of [witness, ...mortals]) assert.deepEqual(await haunt.scheduled(user), [], `${user.name}'s leaves are left`);
  }
  return { ...sums, seconds: Math.round((Date.now() - started) / 1000) };
}

/** The rooms whose calls are killed at once: all of them in the first round, then half, which takes two cores half as long. */
function groups(rooms, n) {
  const half = Math.ceil(rooms.length / 2);
  return n === 1 ? [rooms] : [rooms.slice(0, half), rooms.slice(half)];
}

/** How long after a kill pages may begin to load: what follows from it must not wait for the processor that a page takes. */
const LOAD_MS = 12_000;

/** Brings one into each of some rooms, in a browser of their own; waits for the gate before each. */
async function arrive(haunt, rooms, witnesses, gate = () => {}) {
  if (rooms.length === 0) return undefined;
  const browser = await launchMortal();
  const calls = await each(rooms, async (room) => {
    await gate();
    const call = await haunt.join(browser.browser, room.mortals[0], room);
    if (!witnesses.some((witness) => witness.room === room)) await call.toggleMicrophone(); // nobody is there to hear it
    return call;
  });
  // Each of the witnesses hears the one who came, so none of them was lost in the round before.
  await each(witnesses.filter(({ room }) => rooms.includes(room)), (call) => haunt.hears(call));
  return { browser, calls };
}

/** Kills those who are here, then the others, then callserver with one more; meanwhile the next ones come, and are returned. */
async function round(haunt, { witnesses, here, others, next, come, last: room, sums, tell }) {
  for (const group of [...others, undefined]) {
    const since = await haunt.kill(here.browser, here.calls);
    const ending = haunt.gone(here.calls, { since, within: DEATH_MS });
    const gate = () => (Date.now() > since + LOAD_MS ? ending : undefined);
    const coming = group ? come(group, gate) : launchMortal().then(async (other) => ({ browser: other, calls: [await haunt.join(other.browser, room.mortals[1], room)] }));
    const [ended, came] = await Promise.all([ending, coming]);
    sums.clients += here.calls.length;
    sums.atOnce = Math.max(sums.atOnce, here.calls.length);
    sums.slowestClient = Math.max(sums.slowestClient, ended);
    tell(`${here.calls.length} clients killed at once, gone after ${ended} ms`);
    await haunt.notBounced(witnesses);
    here = came;
  }

  const [last] = here.calls;
  haunt.calls.delete(last);
  const since = await haunt.killCallserver(here.browser);
  const [returned, came] = await Promise.all([haunt.gone([last], { since, within: RESTART_MS }), come(next)]);
  sums.clients++;
  sums.callservers++;
  sums.slowestReturn = Math.max(sums.slowestReturn, returned);
  tell(`callserver killed, who did not return gone ${returned} ms after it was ready`);
  await haunt.notBounced(witnesses);
  return came;
}

/** A call goes on while its homeserver is stopped. */
async function long(haunt, tell) {
  const [room] = haunt.rooms;
  const calls = await each([room.witness, ...room.mortals], (user) => haunt.join(haunt.house.browser, user, room));
  const [leaves, ...stays] = calls;
  for (const call of calls) await haunt.hears(call);
  tell(`three hear each other`);
  const seconds = number("OUTAGE", 600);
  const back = await outage(haunt, { stays, leaves, ms: seconds * 1000, leaveAfter: 10_000, tell });
  return `${seconds} s without the homeserver: nobody was dropped, the leave owed was sent ${back} ms after its return`;
}

/** A homeserver that allows ten minutes at most: clients keep their leaves, and none of them stays. */
async function shortDelays(haunt, tell) {
  const [room] = haunt.rooms;
  await haunt.stack.callserver.line(/delayed leaves cannot be delegated.*DELAY_TOO_LARGE/);
  assert.equal(await haunt.probe(), 404);
  const witness = await haunt.join(haunt.house.browser, room.witness, room);
  const victims = await launchMortal();
  const call = await haunt.join(victims.browser, room.mortals[0], room);
  await haunt.hears(witness);
  const since = await haunt.kill(victims, [call]);
  const ended = await haunt.gone([call], { since, within: DEATH_MS });
  await haunt.notBounced([witness]);
  tell(`max_event_delay_duration of 10 minutes: the probe is 404, and a killed client is gone after ${ended} ms`);
  return ended;
}

async function main() {
  await mkdir(outputs, { recursive: true });
  await npmPackages();
  if (process.env.OUTAGE) {
    return [await haunted("synapse", "outage", { rooms: 1, mortals: 2 }, long)];
  }
  const summary = [];
  for (const kind of process.env.HOMESERVER ? [process.env.HOMESERVER] : ["synapse", "dendrite"]) {
    const sums = await haunted(kind, "ghosts-long", { rooms: number("ROOMS", 10), mortals: 2 }, rounds);
    summary.push(
      `${kind}: ${sums.clients} clients killed (at most ${sums.atOnce} at once), memberships gone within ${sums.slowestClient} ms of the death; ` +
        `callserver killed ${sums.callservers} times, gone within ${sums.slowestReturn} ms of its return; no live member bounced, no ghost left; ${sums.seconds} s`,
    );
    if (kind !== "synapse") continue;
    const ended = await haunted(kind, "ghosts-short-delay", { rooms: 1, mortals: 1, maxDelay: "10m" }, shortDelays);
    summary.push(`${kind} with max_event_delay_duration of 10 minutes: the probe is 404, a killed client was gone after ${ended} ms`);
  }
  return summary;
}

let status = 0;
try {
  const summary = await main();
  console.log(`\n${summary.join("\n")}`);
} catch (error) {
  status = 1;
  console.error(`\nFAILED: ${error.message}`);
}
await stopAll();
process.exit(status);
