// A Haunt is a stack with rooms in which Element Calls live and die: each room has a witness, whose call lives throughout,
// and mortals, whose calls are killed. It owns the stack and the browser of the living, and watches the membership
// events; it never ends one itself.
import assert from "node:assert/strict";
import { join } from "node:path";

import { Call, launchMortal, PATIENCE_MS } from "../elementcall/call.mjs";
import { MatrixError } from "../homeservers/homeserver.mjs";
import { say } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { Stack } from "../stack/stack.mjs";
import { Secrets } from "./secrets.mjs";

const type = "org.matrix.msc3401.call.member";

/** What is allowed: from a client's death, and from callserver being ready again for clients that do not return. */
export const DEATH_MS = 30_000;
export const RESTART_MS = 60_000;

/** Element Call as it ships, but for its patience with a homeserver that is stopped: it would send nothing after 10 s. */
const elementCall = { sync_disconnect_grace_period_ms: 3_600_000 };

/** How often a page is loaded again that could not join: on a machine that is too slow Element Call gives up by itself. */
const AGAIN = 2;

const stateKey = (call) => `_${call.user.id}_${call.device}_m.call`;

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Runs `work` for one item after the other and returns the results in order. Two pages that load at a time would wait for
 * each other's processor, the homeserver would wait for both, and Element Call has deadlines of 5 s.
 */
export async function each(items, work) {
  const results = [];
  for (const item of items) results.push(await work(item));
  return results;
}

export class Haunt {
  calls = new Set(); // that were not killed, for a report
  rooms = []; // {id, witness, mortals}
  secrets = new Secrets();

  /**
   * Starts a homeserver, callserver, and rooms with their users.
   * @param {{kind: string, logs: string, rooms: number, mortals: number, maxDelay?: string}} options
   *   mortals: in each room; maxDelay: the longest delay that the homeserver allows
   */
  static async start({ kind, logs, rooms, mortals, maxDelay }) {
    const names = [];
    for (let i = 0; i < rooms; i++) {
      names.push(`witness${i}`);
      for (let j = 0; j < mortals; j++) names.push(`mortal${i}${"abcdefgh"[j]}`);
    }
    const environment = { CALLSERVER_LOG_LEVEL: "debug" };
    const haunt = new Haunt();
    haunt.stack = await Stack.start({ kind, logs, names, rooms: {}, elementCall, environment, maxDelay });
    haunt.logs = logs;
    // Synapse has delayed events, which clients delegate; elsewhere callserver clears memberships.
    haunt.delegates = kind === "synapse" && maxDelay === undefined;
    try {
      await haunt.#people(rooms);
      haunt.house = await launchMortal();
    } catch (error) {
      await haunt.stop();
      throw error;
    }
    return haunt;
  }

  async #people(rooms) {
    const { users, registrations } = this.stack;
    for (const file of Object.values(registrations)) await this.secrets.registration(file);
    this.secrets.add("an access token", ...users.map(({ token }) => token));
    for (let i = 0; i < rooms; i++) {
      const witness = users.find(({ name }) => name === `witness${i}`);
      const mortals = users.filter(({ name }) => name.startsWith(`mortal${i}`));
      const id = await witness.createRoom({ name: `room ${i}`, encrypted: false, invite: mortals });
      for (const mortal of mortals) await mortal.join(id);
      this.rooms.push({ id, witness, mortals });
    }
  }

  /** The SFU as clients are told. */
  get mediaURL() {
    return `${this.stack.callserverURL.replace("http", "ws")}/livekit/sfu`;
  }

  /** Waits until clients are told that they may delegate, where they may. */
  async ready() {
    if (!this.delegates) return;
    await eventually("the probe is answered", PATIENCE_MS, async () => ((await this.probe()) === 404 ? undefined : true));
  }

  /** Asks as Element Call does whether leaves may be delegated. */
  async probe() {
    return (await fetch(`${this.stack.serviceURL}/delegate_delayed_leave`, { method: "POST" })).status;
  }

  /** Brings a user into the call of a room and waits for the membership. */
  async join(browser, user, room) {
    const call = await Call.create(browser, user, { widget: false, logs: this.logs });
    call.room = room;
    this.calls.add(call);
    // What cleans the sound of a microphone costs more than the rest of a call.
    await call.context.addInitScript(() => {
      if (!location.hostname.endsWith("localhost")) return; // about:blank has no storage
      for (const key of ["echo-cancellation", "noise-suppression", "auto-gain-control"]) localStorage.setItem(`matrix-setting-${key}`, "false");
    });
    this.#watch(call);
    await this.enter(call);
    return call;
  }

  #watch(call) {
    this.secrets.watch(call.page, this.stack.callserverURL);
    call.page.on("response", (response) => {
      const request = response.request();
      const [url, body] = [request.url(), request.postData() ?? ""];
      if (url.endsWith("/sfu/get") && body.includes("delay_id")) call.delegated = response.status() === 200;
      if (request.method() === "PUT" && url.includes(type) && body.includes("device_id")) call.announced = response.status() === 200;
    });
  }

  /** Opens the room's page, for the first time or again, presses Join, and waits for the membership and its delegation. */
  async enter(call) {
    for (let n = 0; ; n++) {
      try {
        return await this.#enter(call);
      } catch (error) {
        const shown = await call.error();
        if (n === AGAIN || !shown) throw error;
        say(`${call.name} shows "${shown}", and is loaded again`);
      }
    }
  }

  async #enter(call) {
    call.delegated = call.announced = false;
    const before = call.lines.length;
    const gaveUp = () => call.lines.slice(before).some((line) => line.includes("Error boundary caught")) || undefined;
    await call.open(this.stack.site.link(call.user, { room: call.room.id }));
    const [session] = await call.page.evaluate(() => [JSON.parse(localStorage.getItem("matrix-auth-store"))]);
    this.secrets.add("an access token", session.access_token);
    await call.join();
    // Who comes back before anybody noticed is a member by the event of before: Synapse makes no new one of the same content.
    await eventually(`${call.name} announces itself`, PATIENCE_MS, async () => call.announced || gaveUp());
    assert.ok(call.announced, `${call.name} gave up`);
    call.member = await eventually(`${call.name} is a member`, PATIENCE_MS, async () => {
      const event = await this.membership(call);
      return event.content.device_id ? event : undefined;
    });
    if (this.delegates) await this.#delegated(call);
  }

  /** Waits until callserver has taken the leave of a call over, which is then the only one and an hour ahead. */
  async #delegated(call) {
    await eventually(`${call.name} delegates its leave`, PATIENCE_MS, async () => call.delegated || undefined);
    await eventually(`${call.name} has one leave`, PATIENCE_MS, async (seen) => {
      const delays = (await this.scheduled(call.user)).map(({ delay_ms: delay }) => delay);
      seen(delays);
      return delays.join() === "3600000" ? true : undefined;
    });
  }

  /** Has the page's process crash, as a bug of the browser would: nothing says goodbye. The profile stays. */
  async crash(call) {
    const session = await call.context.newCDPSession(call.page);
    const crashed = new Promise((resolve) => call.page.once("crash", resolve));
    session.send("Page.crash").catch(() => {}); // nobody is left to answer
    await crashed;
    call.watch(await call.context.newPage());
    this.#watch(call);
  }

  /** The membership event of a call as it is now; its content is empty before and after. */
  async membership(call) {
    const path = [call.room.id, "state", type, stateKey(call)].map(encodeURIComponent).join("/");
    try {
      return await call.room.witness.request("GET", `v3/rooms/${path}?format=event`);
    } catch (error) {
      if (error instanceof MatrixError && error.errcode === "M_NOT_FOUND") return { content: {} };
      throw error;
    }
  }

  /** The delayed events that the homeserver holds for a user. */
  async scheduled(user) {
    return (await user.request("GET", "unstable/org.matrix.msc4140/delayed_events")).delayed_events;
  }

  /**
   * Waits until the memberships of these calls have ended and returns how many milliseconds that took. A homeserver that
   * does not answer shows none that ended.
   */
  async gone(calls, { since, within }) {
    let open = [...calls];
    for (;;) {
      const contents = await Promise.all(open.map((call) => this.membership(call).catch(() => ({ content: { unknown: true } }))));
      open = open.filter((_, i) => Object.keys(contents[i].content).length > 0);
      const passed = Date.now() - since;
      assert.ok(passed < within, `ghosts after ${passed} ms, at most ${within}: ${open.map(({ name }) => name)}`);
      if (open.length === 0) return passed;
      await sleep(500);
    }
  }

  /** The calls are members by the very events that they sent when they came. */
  async notBounced(calls) {
    for (const call of calls) {
      const { event_id: id, content } = await this.membership(call);
      assert.equal(id, call.member.event_id, `${call.name} was bounced: ${JSON.stringify(content)}`);
    }
  }

  /** Waits until a call decodes sound: of the same track more than a moment before. */
  async hears(call) {
    const sound = async () => (await call.inbound()).filter(({ kind }) => kind === "audio");
    let before = new Map();
    await eventually(`${call.name} decodes sound`, PATIENCE_MS, async (seen) => {
      const now = await sound();
      seen(now);
      const more = now.some(({ track, packets, samples }) => {
        const was = before.get(track);
        return was && packets > was.packets && samples > was.samples;
      });
      before = new Map(now.map((stream) => [stream.track, stream]));
      return more ? true : undefined;
    });
  }

  /** Kills callserver with some browsers (kill -9) and starts it again; returns when it was ready. */
  async killCallserver(...browsers) {
    await Promise.all([this.stack.callserver.kill(), ...browsers.map((browser) => browser.kill())]);
    await this.stack.startCallserver();
    return Date.now();
  }

  /** Restarts callserver as an operator would. */
  async restartCallserver() {
    await this.stack.callserver.stop();
    await this.stack.startCallserver();
  }

  /** Kills a browser (kill -9) with the calls in it; returns when. */
  async kill(browser, calls) {
    for (const call of calls) this.calls.delete(call);
    await browser.kill();
    return Date.now();
  }

  /**
   * Asks callserver for tokens with access tokens in the header, as clients do of whom their homeserver's proxy sends
   * here: one that is good and one that is not, in the user's room and in another. Some of it is always refused.
   */
  async showAccessTokens({ id, witness }) {
    const unknown = `unknown-${witness.name}-0123456789abcdef`;
    this.secrets.add("an access token that nobody has", unknown);
    for (const token of [witness.token, unknown]) {
      for (const room of [id, "!nowhere:localhost"]) {
        const response = await fetch(`${this.stack.callserverURL}/_matrix/client/v1/rtc/livekit/get_token`, {
          method: "POST",
          headers: { authorization: `Bearer ${token}` },
          body: JSON.stringify({ url: this.mediaURL, room_id: room, slot_id: "m.call#ROOM", member_id: "somebody" }),
        });
        const text = await response.text();
        if (response.ok) this.secrets.add("a token of the SFU", JSON.parse(text).jwt);
        else this.secrets.answered(text);
      }
    }
  }

  /** None of the secrets of the run is where it could be read later. */
  async keptSecrets() {
    const { found, secrets, places, errors } = await this.secrets.found(join(this.logs, "callserver.log"), this.stack.directory);
    assert.deepEqual(found, []);
    assert.ok(secrets > 5 && errors > 2 && places.includes("callserver.db"), `only ${secrets} secrets, ${errors} errors, ${places}`);
  }

  /** Writes what the living see and what callserver says, to find out why, and returns the error with the gist of both. */
  async explained(error, label) {
    const pages = await Promise.all([...this.calls].map((call) => call.report(label)));
    await this.stack.report(this.logs);
    const here = this.rooms.map(async ({ id, witness }) => {
      const people = await this.stack.participants(id).catch(({ message }) => [{ identity: message }]);
      const told = people.map(({ identity, sid, state, tracks = [] }) => `${identity} ${sid} ${state}, ${tracks.length} tracks`);
      return `callserver has in the room of ${witness.name}: ${told.join("; ") || "nobody"}`;
    });
    const gist = [...pages, ...(await Promise.all(here))].join("\n");
    return new Error(`${error.message}\n${gist}\nscreenshots, consoles and logs: ${this.logs}`, { cause: error });
  }

  async stop() {
    await this.house?.close();
    await this.stack.stop();
  }
}
