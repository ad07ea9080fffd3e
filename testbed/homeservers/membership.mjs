// Only members of a Matrix room get into its calls, and who is kicked is
// disconnected: callserver with the registrations that it gives to operators,
// at real homeservers, without a browser.
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { freePorts, stopAll } from "../process/process.mjs";
import { connect } from "./caller.mjs";
import { ground, serve } from "./ground.mjs";

/** Milliseconds for which callserver believes that a user is in a room, unless an event says otherwise. */
const BELIEVED_MS = 20_000;

/** Milliseconds from a first participant until its room is followed. */
const FOLLOWED_MS = 1_500;

after(stopAll); // what a start that failed left behind

/** A homeserver, and callservers with different privileges at it. */
async function start(kind) {
  const here = await ground(kind, "membership");
  const { homeserver, directory, logs } = here;
  const ports = await freePorts(4);
  const url = `http://127.0.0.1:${ports[0]}`; // events are pushed here
  const registrations = await homeserver.registrations(directory, url);
  await homeserver.start({ directory, logs, callserver: url, registrations: Object.values(registrations) });
  const world = { homeserver, registrations, directory, callservers: [] };
  const at = async (...how) => {
    const { callserver, url } = await serve(here, ...how);
    world.callservers.push(callserver);
    return url;
  };
  const { narrow, wide } = registrations;
  world.pushed = await at("pushed", [narrow, wide], { ports });
  world.polled = await at("polled", [wide]);
  world.asked = await at("asked", [narrow]); // nothing is pushed here
  return world;
}

/** Whether the SFU takes a token. */
const good = async ({ url, jwt }) =>
  (await fetch(`${url.replace("ws", "http")}/rtc/validate?access_token=${jwt}`)).status === 200;

/** Resolves with the milliseconds until a call ends, from now on; fails after a time. */
async function end(call, within) {
  const begin = performance.now();
  const ended = await Promise.race([call.ended.then(() => true), sleep(within + 3_000, false, { ref: false })]);
  const took = Math.round(performance.now() - begin);
  assert.ok(ended && took < within, ended ? `the call ended after ${took} ms, not within ${within}` : `the call goes on after ${took} ms`);
  return took;
}

/** What users do in a room, and what a callserver says to them. */
class Scene {
  constructor(url, room, owner) {
    Object.assign(this, { url, room, owner });
  }

  async ask(user, token) {
    const response = await fetch(`${this.url}/livekit/jwt/sfu/get`, {
      method: "POST",
      body: JSON.stringify({ room: this.room, openid_token: token ?? (await user.openID()), device_id: user.device }),
    });
    return { status: response.status, body: await response.json() };
  }

  async refused(user) {
    const { status, body } = await this.ask(user);
    assert.deepEqual([status, body.errcode], [403, "M_FORBIDDEN"], JSON.stringify(body));
  }

  async admitted(user) {
    const { status, body } = await this.ask(user);
    assert.equal(status, 200, JSON.stringify(body));
    return body;
  }

  /** Admits a user who then is in the call. */
  async joins(user) {
    const token = await this.admitted(user);
    return Object.assign(await connect(token), { token });
  }

  /** The owner invites, kicks, bans or unbans a user. */
  act(what, user) {
    return this.owner.request("POST", `v3/rooms/${encodeURIComponent(this.room)}/${what}`, { user_id: user.id });
  }

  /** Whether the owner sees the user in the room. */
  async has(user) {
    const events = await this.owner.state(this.room, "m.room.member");
    return events.some(({ state_key, content }) => state_key === user.id && content.membership === "join");
  }

  leave(user) {
    return user.request("POST", `v3/rooms/${encodeURIComponent(this.room)}/leave`, {});
  }

  async brings(user) {
    await this.act("invite", user);
    await user.join(this.room);
  }

  /** A user who was put out does not come back with the old token nor get a new one, until it is a member again. */
  async comesBackAsMember(user, { token }) {
    assert.equal(await good(token), false, "the token is worthless");
    await this.refused(user);
    await this.brings(user);
    assert.equal(await good(await this.admitted(user)), true, "verified anew");
    assert.equal(await good(token), false, "the old token stays worthless");
  }
}

for (const kind of ["dendrite", "synapse"]) {
  describe(kind, () => {
    let world, alice;
    before(async () => {
      world = await start(kind);
      alice = await world.homeserver.register("alice", "alice-password");
    });
    after(async () => {
      for (const callserver of world?.callservers ?? []) await callserver.stop();
      await world?.homeserver.stop();
      if (world) await rm(world.directory, { recursive: true, force: true });
    });

    let users = 0;
    /** A new user, and a new room of alice at a callserver. */
    const scene = async (callserver, name) => {
      const user = await world.homeserver.register(`${name}${++users}`, "password");
      const room = await alice.createRoom({ name, encrypted: false });
      return [new Scene(world[callserver], room, alice), user];
    };

    // A few at a time, since most of it is waiting; Dendrite's SQLite locks where several write at once.
    describe("members", { concurrency: kind === "synapse" ? 4 : 1 }, () => {
      const states = {
        "was never in the room": async () => {},
        "is invited": (scene, user) => scene.act("invite", user),
        left: async (scene, user) => {
          await scene.brings(user);
          await scene.leave(user);
        },
        "was kicked": async (scene, user) => {
          await scene.brings(user);
          await scene.act("kick", user);
        },
        "is banned": async (scene, user) => {
          await scene.brings(user);
          await scene.act("ban", user);
        },
      };
      const telling = kind === "synapse" ? ["polled", "asked"] : ["polled"];
      if (kind === "synapse") {
        // The longest first.
        test("where only MSC4502 tells, a kick ends the call within 30 s", async (t) => {
          const [in_, user] = await scene("asked", "carol");
          await in_.brings(user);
          const [call, other] = [await in_.joins(user), await in_.joins(alice)];
          await in_.act("kick", user);
          t.diagnostic(`kick: ${await end(call, 30_000)} ms`);
          assert.equal(other.open, true, "the others stay");
          other.close();
          await in_.comesBackAsMember(user, call);
        });
      } else {
        test("where nobody tells, everybody is refused", async () => {
          const [in_] = await scene("asked", "carol");
          await in_.refused(alice);
        });
      }

      for (const [name, bring] of Object.entries(states)) {
        test(`a user who ${name} is refused`, async () => {
          for (const callserver of telling) {
            const [in_, user] = await scene(callserver, "carol");
            await bring(in_, user);
            await in_.refused(user);
          }
        });
      }

      test("a member is admitted", async () => {
        for (const callserver of telling) {
          const [in_, user] = await scene(callserver, "carol");
          await in_.brings(user);
          await in_.admitted(user);
        }
      });

      // The wide registration: no bot is in the room.
      for (const what of ["kick", "ban", "leave"]) {
        test(`with the wide registration, a ${what} ends the call within 2 s`, async (t) => {
          const [in_, user] = await scene("polled", "carol");
          await in_.brings(user);
          const [call, other] = [await in_.joins(user), await in_.joins(alice)];
          await sleep(FOLLOWED_MS);
          await (what === "leave" ? in_.leave(user) : in_.act(what, user));
          t.diagnostic(`${what}: ${await end(call, 2_000)} ms`);
          assert.equal(other.open, true, "the others stay");
          other.close();
          if (what === "ban") await in_.act("unban", user);
          await in_.comesBackAsMember(user, call);
        });
      }

      test("with the wide registration, it does not matter through whose eyes it is seen", async (t) => {
        const [in_, zoe] = await scene("polled", "zoe");
        const aaron = await world.homeserver.register(`aaron${++users}`, "password");
        for (const user of [zoe, aaron]) await in_.brings(user);
        const calls = [await in_.joins(aaron), await in_.joins(zoe), await in_.joins(alice)];
        await sleep(FOLLOWED_MS);
        for (const [i, user] of [aaron, zoe].entries()) {
          await in_.act("kick", user);
          t.diagnostic(`kick: ${await end(calls[i], 2_000)} ms`);
        }
        assert.equal(calls[2].open, true, "alice stays");
        calls[2].close();
      });

      test("a token from before the kick is of no use when the call begins later", async (t) => {
        const [in_, user] = await scene("polled", "carol");
        await in_.brings(user);
        const token = await in_.admitted(user);
        await in_.act("kick", user);
        t.diagnostic(`first in the call: ${await end(await connect(token), 2_000)} ms`);
        const other = await in_.joins(alice);
        await sleep(FOLLOWED_MS);
        assert.equal(await good(token), false, "the token is worthless");
        other.close();
      });

      test("a deactivated user is put out within 2 s of the leave that follows", async (t) => {
        const [in_, user] = await scene("polled", "gone");
        await in_.brings(user);
        const [call, other] = [await in_.joins(user), await in_.joins(alice)];
        await sleep(FOLLOWED_MS);
        const identifier = { type: "m.id.user", user: user.id };
        await user.request("POST", "v3/account/deactivate", { auth: { type: "m.login.password", identifier, user: user.id, password: "password" } });
        for (const deadline = Date.now() + 30_000; await in_.has(user); await sleep(50)) {
          assert.ok(Date.now() < deadline, "the homeserver does not take a deactivated user out of its rooms within 30 s");
        }
        t.diagnostic(`deactivated, and left: ${await end(call, 2_000)} ms`);
        assert.equal(await good(call.token), false, "the token is worthless");
        assert.equal(other.open, true, "the others stay");
        other.close();
      });

      test("with the sender in the room, which accepts the invitation, a kick and a ban end the call within 2 s", async (t) => {
        const [in_, user] = await scene("pushed", "carol");
        await in_.brings(user);
        const sender = { id: `@_callserver:${world.homeserver.name}` };
        await in_.act("invite", sender);
        for (const deadline = Date.now() + 10_000; !(await in_.has(sender)); await sleep(100)) {
          assert.ok(Date.now() < deadline, "the sender did not join within 10 s of the invitation");
        }
        for (const what of ["kick", "ban"]) {
          const [call, other] = [await in_.joins(user), await in_.joins(alice)];
          await sleep(FOLLOWED_MS);
          await in_.act(what, user);
          t.diagnostic(`${what}: ${await end(call, 2_000)} ms`);
          assert.equal(other.open, true, "the others stay");
          other.close();
          if (what === "ban") await in_.act("unban", user);
          await in_.comesBackAsMember(user, call);
        }
      });

      test("nobody gets another device by what is asked in their name", async () => {
        const [in_] = await scene("polled", "carol");
        const call = await in_.joins(alice);
        await sleep(FOLLOWED_MS);
        const { devices } = await alice.request("GET", "v3/devices");
        assert.deepEqual(devices.map(({ device_id }) => device_id), [alice.device]);
        call.close();
      });
    });

    test("the homeserver stopped: nobody is admitted, and nobody is dropped", async () => {
      const names = kind === "synapse" ? ["pushed", "polled", "asked"] : ["pushed", "polled"];
      const room = await alice.createRoom({ name: "going on", encrypted: false });
      const scenes = names.map((name) => new Scene(world[name], room, alice));
      const calls = [];
      for (const scene of scenes) calls.push(await scene.joins(alice));
      const token = await alice.openID();
      await world.homeserver.pause();
      await sleep(BELIEVED_MS);
      for (const [i, name] of names.entries()) {
        const { status, body } = await scenes[i].ask(alice, token);
        assert.ok([401, 502].includes(status), `${name}: ${status} ${body.errcode}`);
        assert.equal(calls[i].open, true, `${name}: the call goes on`);
        calls[i].close();
      }
    });
  });
}
