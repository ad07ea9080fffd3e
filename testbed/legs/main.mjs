// A hundred older clients call the bots of fifty rooms, two in each, at a real homeserver, while callserver's requests about one
// of the rooms take half a minute: the others must not notice. Before, callserver is killed in the middle of such calls, and
// stopped in order: every call is hung up and every membership cleared soon after.
//
//	node testbed/legs/main.mjs      HOMESERVER=synapse or dendrite for one of the two; ROOMS, RATE (callers a second), DELAY (seconds)
//	SHORT=1 node testbed/legs/main.mjs      five rooms, and the delay alone
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { ground, serve } from "../homeservers/ground.mjs";
import { goProgram, say } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { freePorts, Process, stopAll, stopOnSignals } from "../process/process.mjs";

const number = (name, otherwise) => Number(process.env[name] || otherwise);
const short = process.env.SHORT === "1";

/**
 * How much worse the p99 of the others may be while one room is slow, and by how much at least, so that no figure is about nothing.
 * The short form has eight of them, on a machine that does other things: it shows that none waits for a time-out.
 */
const WORSE = 1.5;
const FLOOR_MS = short ? 1000 : 100;
/** When callserver stops waiting for an answer: in the short form the others call just then, as somebody does in the long one. */
const TIMEOUT_MS = 5_000;
/** How soon after callserver's end nothing may be left of its calls. */
const CLEARED_S = 60;

/** Callers a second that two cores carry with everything else on them, so that the undelayed run measures no queue. */
const RATES = { synapse: 2, dendrite: 4 };

/** Does a lot of things, so many at a time. */
async function each(list, atOnce, work) {
  const results = [];
  const queue = list.entries();
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (const [i, one] of queue) results[i] = await work(one, i);
    }),
  );
  return results;
}

/** The nearest rank. */
const percentile = (sorted, p) => sorted[Math.ceil((p / 100) * sorted.length) - 1];

class Legs {
  static async start(kind) {
    const legs = new Legs();
    Object.assign(legs, await ground(kind, short ? "legs-short" : "legs"), { kind });
    const { homeserver, directory, logs } = legs;
    legs.ports = await freePorts(4);
    const url = `http://127.0.0.1:${legs.ports[0]}`;
    legs.registrations = Object.values(await homeserver.registrations(directory, url));
    await homeserver.start({ directory, logs, callserver: url, registrations: legs.registrations });
    const program = (legs.program = new Process("legs", [await goProgram("testbed/legs"), "-to", homeserver.url], { log: join(logs, "legs.log") }));
    const [, control, proxy] = await program.line(/^ready control=(\S+) proxy=(\S+)/);
    legs.control = `http://${control}`;
    legs.proxy = `http://${proxy}`;
    await legs.callserver();
    return legs;
  }

  /** Starts callserver, the first time or again. */
  async callserver() {
    const { homeserver, directory, logs, registrations, ports } = this;
    const behind = { name: homeserver.name, authority: homeserver.authority, url: this.proxy };
    const data = join(directory, "callserver.db");
    this.server = (await serve({ homeserver: behind, directory, logs }, "callserver", registrations, { ports, data, known: true })).callserver;
  }

  async tell(path, query = {}, body) {
    const response = await fetch(`${this.control}/${path}?${new URLSearchParams(query)}`, { method: "POST", body: body && JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${path}: ${text}`);
    return JSON.parse(text);
  }

  /** Registers two users for each room, makes the rooms and has the bot in them. */
  async fill(count) {
    const { homeserver } = this;
    const bot = { id: `@_callserver:${homeserver.name}` };
    const users = await each(Array.from({ length: 2 * count }), 4, (_, i) => homeserver.register(`caller${i}`, `caller${i}-password`));
    this.rooms = await each(Array.from({ length: count }), 4, async (_, i) => {
      const [first, second] = users.slice(2 * i, 2 * i + 2);
      const room = await first.createRoom({ name: `room ${i}`, encrypted: false, invite: [second, bot] });
      await second.join(room);
      await eventually("the bot is in the room", 30_000, async () => {
        const { joined } = await first.request("GET", `v3/rooms/${encodeURIComponent(room)}/joined_members`);
        return joined[bot.id] && true;
      });
      return { id: room, users: [first, second] };
    });
    const callers = this.rooms.flatMap(({ id, users: two }) => two.map((user) => ({ user: user.id, token: user.token, room: id })));
    await this.tell("enter", {}, { url: homeserver.url, bot: bot.id, callers });
  }

  /** A few calls of a callserver that has just started, so that what is slow only once is in no figure. */
  async warm() {
    for (const { id } of this.rooms.slice(0, 3)) await this.tell("place", { rate: 100, room: id });
    await this.hangUp();
  }

  /** Has all place their calls; returns what became of them, and prints how long those outside the slow room took. */
  async place(name, { rate, slow }) {
    const used = cpu(this.server.child.pid);
    const first = short && slow ? this.tell("place", { rate, room: slow }) : undefined;
    if (first) await sleep(TIMEOUT_MS);
    const { legs, seconds } = await this.tell("place", { rate, except: first ? slow : "" });
    if (first) legs.push(...(await first).legs);
    const others = legs.filter(({ room }) => room !== slow);
    const failed = others.filter(({ failed }) => failed);
    const times = others.map(({ ms }) => ms).sort((a, b) => a - b);
    assert.deepEqual(failed, [], `${name}: calls failed`);
    const [p50, p99] = [50, 99].map((n) => percentile(times, n));
    say(`${this.kind}, ${name}: ${others.length} calls, ${rate} a second, invitation to first packet p50 ${p50.toFixed(0)} ms, p99 ${p99.toFixed(0)} ms; ` +
      `callserver used ${(cpu(this.server.child.pid) - used).toFixed(1)} s of processor time in ${seconds.toFixed(0)} s; the slowest were answered, connected and heard after ` +
      others.toSorted((a, b) => b.ms - a.ms).slice(0, 3).map(({ answer, linked, ms }) => `${answer.toFixed(0)}, ${linked.toFixed(0)} and ${ms.toFixed(0)}`).join("; "));
    return { p99, slow: legs.filter(({ room }) => room === slow) };
  }

  /** The memberships of callers that the rooms' own state has. */
  async members() {
    const found = await each(this.rooms, 8, async ({ id, users: [user] }) => (await user.state(id, "org.matrix.msc3401.call.member")).filter(({ content }) => content.device_id));
    return found.flat();
  }

  /** Has all callers hang up, and waits until that is dealt with: else it is in the figures of what follows. */
  async hangUp() {
    await this.tell("hangup");
    await eventually("everybody is out", CLEARED_S * 1000, async () => (await this.members()).length === 0 || undefined);
  }

  /** Waits until nothing is left of the calls that were up, and prints when the last of it went. */
  async cleared(name, since, calls) {
    const seen = await this.tell("watch", { since, for: `${CLEARED_S}s` });
    const took = (Date.now() - since) / 1000;
    say(`${this.kind}, ${name}: ${seen.hungUp} of ${seen.calls} calls hung up, the last after ${seen.lastHangup} ms, ` +
      `${seen.cleared} of ${seen.memberships} memberships cleared, the last after ${seen.lastCleared} ms`);
    assert.deepEqual(seen.left, [], `${name}: left after ${took.toFixed(0)} s`);
    assert.equal(seen.calls, calls, `${name}: calls`);
    assert.ok(seen.lastHangup <= CLEARED_S * 1000 && seen.lastCleared <= CLEARED_S * 1000);
    assert.deepEqual(await this.members(), [], `${name}: the rooms' own state`);
  }

  async stop() {
    await this.server?.stop();
    await this.program?.stop();
    await this.homeserver.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Seconds of processor time that a process has used. */
function cpu(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100; // user and system, in the ticks of every Linux
}

async function run(kind) {
  const rate = number("RATE", short ? 10 : RATES[kind]);
  const delay = number("DELAY", short ? 6 : 30);
  const legs = await Legs.start(kind);
  try {
    await legs.fill(number("ROOMS", short ? 5 : 50));
    const all = 2 * legs.rooms.length;
    await legs.warm();
    // Both measured runs follow a callserver that has just started and cleared as many calls: in a room that it does not know yet a call takes longer.
    if (!short) {
      await legs.place("at first", { rate });
      const killed = Date.now();
      await legs.server.kill();
      await legs.callserver();
      await legs.cleared("callserver killed", killed, all);
      await legs.warm();
    }
    const quick = await legs.place("undelayed", { rate });
    if (short) {
      await legs.hangUp();
    } else {
      const stopped = Date.now();
      await legs.server.stop();
      await legs.callserver();
      await legs.cleared("callserver stopped", stopped, all);
      await legs.warm();
    }

    const slow = legs.rooms[Math.floor(legs.rooms.length / 4)].id; // most come after it
    await legs.tell("delay", { room: slow, for: `${delay}s` });
    const delayed = await legs.place(`one room delayed by ${delay} s`, { rate, slow });
    const { requests } = await legs.tell("delay", { room: "", for: "0s" });
    const bar = Math.max(WORSE * quick.p99, quick.p99 + FLOOR_MS);
    say(`${kind}: p99 is ${(delayed.p99 / quick.p99).toFixed(2)} of the undelayed (at most ${WORSE}, or ${FLOOR_MS} ms more: ${bar.toFixed(0)} ms); ` +
      `${requests} requests were kept back, and in the slow room: ${delayed.slow.map(({ ms, failed }) => failed ?? `${ms} ms`).join("; ")}`);
    assert.ok(requests > 0, "no request was kept back");
    assert.ok(delayed.p99 <= bar, `p99 ${delayed.p99.toFixed(0)} ms, at most ${bar.toFixed(0)} ms`);
    if (short) return await legs.hangUp();

    const [{ failed: first }, { failed: second }] = (await legs.tell("place", { rate, room: slow })).legs;
    assert.deepEqual([first, second], [undefined, undefined], "the room that was slow");
  } finally {
    await legs.stop();
  }
}

stopOnSignals();
const began = Date.now();
try {
  for (const kind of process.env.HOMESERVER?.split(",") ?? ["synapse", "dendrite"]) await run(kind);
  say(`legs: passed in ${Math.round((Date.now() - began) / 1000)} s`);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await stopAll();
}
