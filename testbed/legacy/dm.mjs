// Calls in rooms for two, where either kind of client rings the other: alice's Element Call in a host as Element Web and X have
// it, matrix-js-sdk's own 1:1 calls on bob's page, callserver between. In an unencrypted room both agreed, the bot is not there, and
// each is there under the own name; in an encrypted one the bot is, invited and declared a functional member, and speaks.
// LONG=1 for all of it; HOMESERVER and ROOM, encrypted or unencrypted, for a part.
import assert from "node:assert/strict";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";

import { busyMachine, Call, launch, PATIENCE_MS } from "../elementcall/call.mjs";
import { flowing } from "../elementcall/media.mjs";
import { widgetHost } from "../elementcall/widget/bundle.mjs";
import { peer } from "../homeservers/homeserver.mjs";
import { outputs } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { stopAll, stopOnSignals } from "../process/process.mjs";
import { Stack } from "../stack/stack.mjs";
import { LegacyClient } from "./client.mjs";
import { command, events, expectMembers, inviteBot } from "./talk.mjs";

stopOnSignals();
let browser;
before(async () => (browser = await launch()));
after(stopAll);

const MEMBER = "org.matrix.msc3401.call.member";
const RING = "org.matrix.msc4075.rtc.notification";
const DECLINE = "org.matrix.msc4310.rtc.decline";

/** Milliseconds that a ring or an invitation lives where nobody is to answer it. */
const BRIEF_MS = 8_000;

const long = process.env.LONG === "1";
const left = []; // to the long form

const incoming = (call) => call.incoming && call.state === "ringing";

for (const kind of process.env.HOMESERVER?.split(",") ?? ["synapse", "dendrite"]) {
  describe(`rooms for two at ${kind}`, () => {
    const logs = join(outputs, `dm-${kind}`);
    const plain = { name: "unencrypted" };
    const sealed = { name: "encrypted" };
    let stack, alice, bob, carol, bot, apart, call, legacy;

    before(async () => {
      await (await peer(kind)).prepare();
      await rm(logs, { recursive: true, force: true });
      await mkdir(logs, { recursive: true });
      const rooms = { lobby: { encrypted: false } };
      stack = await Stack.start({ kind, logs, names: ["alice", "bob", "carol"], rooms, widget: await widgetHost(), elementCall: busyMachine });
      [alice, bob, carol] = stack.users;
      bot = { id: `@_callserver:${stack.homeserver.name}`, name: "_callserver" };
      const { lobby } = stack.rooms;
      await inviteBot(alice, bot, lobby);
      for (const user of [alice, bob]) assert.match(await command(user, lobby, "!call bridge me on"), /^You agreed/);
      for (const dm of [plain, sealed]) {
        dm.room = await alice.createRoom({ name: dm.name, encrypted: dm === sealed, invite: [bob] });
        await bob.join(dm.room);
      }
      apart = await bob.createRoom({ name: "apart", encrypted: false, invite: [carol] });
      await carol.join(apart);
      Object.assign(plain, { speaker: alice, member: bob, device: "CALLBRIDGE" });
      Object.assign(sealed, { speaker: bot, member: bot });
      await inviteBot(alice, bot, sealed.room);
      await alice.setState(sealed.room, "io.element.functional_members", { service_members: [bot.id] });
      await command(alice, sealed.room, "!call bridge on");
      call = await Call.create(browser, alice, { widget: true, logs });
      legacy = await LegacyClient.open(browser, bob, { logs, keys: true });
    });
    after(async () => {
      for (const page of [call, legacy]) await page?.report("dm");
      await stack?.report(logs);
      for (const page of [call, legacy]) await page?.close();
      await stack?.stop();
      for (const text of left.splice(0)) console.log(`left to LONG=1: ${text}`);
    });

    for (const dm of [plain, sealed].filter(({ name }) => !process.env.ROOM || name === process.env.ROOM)) {
      describe(`in an ${dm.name} room`, () => {
        const longTest = (name, run) => (long ? test(name, run) : left.push(`in an ${dm.name} room, ${name}`));
        /** The unencrypted room is the easier one. */
        const sealedTest = dm === sealed ? test : longTest;

        /** A test that failed leaves nothing to the next one: Element Call does not ring where somebody is in the call already. */
        afterEach(async () => {
          if (stack.callserver.end) await stack.startCallserver();
          await call.quit();
          await legacy.hangupAll();
          await expectMembers(alice, dm.room, []);
        });

        /** Opens alice's client in the room, with Element Call's lobby. */
        const open = (intent) => call.open(stack.site.link(alice, { room: dm.room, widget: true, intent }));

        /** Waits for an event that alice's client can read. */
        const seen = (what, type, since, fits = () => true) =>
          eventually(what, PATIENCE_MS, async (saw) => {
            const all = await call.page.evaluate((query) => globalThis.host.events(query), [type, since]);
            saw(all);
            return all.find(fits);
          });

        /** Has alice's client send an event, as the host of Element Call does. */
        const send = (type, content) => call.page.evaluate((event) => globalThis.host.send(event), [type, content]);

        const membershipOf = async (user) => (await alice.state(dm.room, MEMBER)).find(({ sender, content }) => sender === user.id && content.device_id);

        /** Waits for the ring of bob's call, and checks it. */
        async function ringOf(since, lifetime = 60_000) {
          const ring = await seen("a ring", RING, since, ({ sender }) => sender === dm.member.id);
          const member = await membershipOf(dm.member);
          assert.deepEqual(ring.content["m.relates_to"], { rel_type: "m.reference", event_id: member.event_id });
          assert.deepEqual(ring.content["m.mentions"].user_ids, [alice.id]);
          assert.equal(ring.content.notification_type, "ring");
          assert.equal(ring.content["m.call.intent"], "video");
          assert.ok(ring.content.lifetime > lifetime - 20_000 && ring.content.lifetime > 0 && ring.content.lifetime <= lifetime, `${ring.content.lifetime}`);
          assert.equal(ring.encrypted, dm === sealed);
          if (dm.device) assert.equal(member.content.device_id, dm.device);
          return ring;
        }

        /** Has alice's client ring bob for a time, as an intent of Element Call does for 90 s. */
        async function ring(lifetime = 30_000) {
          const { event_id: id } = await membershipOf(alice);
          return send(RING, {
            "m.mentions": { user_ids: [], room: true },
            notification_type: "ring",
            "m.relates_to": { rel_type: "m.reference", event_id: id },
            sender_ts: Date.now(),
            lifetime,
            "m.call.intent": "video",
          });
        }

        /** Bob, as alice sees him: where the bot has the call its name says for whom. */
        const shown = () => ({ name: dm === plain ? bob.name : `${bob.name} (via callserver)` });

        /** Waits until both hear and see each other, decoded. */
        async function expectTalk(page = legacy) {
          const { opponent } = await page.becomes("connected");
          assert.equal(opponent, dm.speaker.id);
          await Promise.all([flowing(call, [call, shown()]), page.receives()]);
          const transforms = await call.transforms(); // of sound and picture, both ways
          assert.ok(dm === sealed ? transforms >= 4 : transforms === 0, `${transforms} encrypted tracks`);
          if (dm === sealed) await page.becomes(({ identity }) => identity?.id === alice.id, "told that alice is on the line");
          await expectMembers(alice, dm.room, [alice, dm.member]);
        }

        /** Everybody is gone. */
        async function expectNobody() {
          await legacy.becomes("ended");
          await expectMembers(alice, dm.room, []);
        }

        test("a call rings alice, and is answered by joining", async () => {
          await open("join_existing");
          const since = Date.now();
          await legacy.place({ room: dm.room });
          await ringOf(since);
          await call.join();
          await expectTalk();
          await call.leave();
          await expectNobody();
        });

        test("declined, it is rejected; given up, it leaves nothing behind", async () => {
          await open("join_existing");
          let since = Date.now();
          await legacy.place({ room: dm.room });
          const { id } = await ringOf(since);
          await send(DECLINE, { "m.relates_to": { rel_type: "m.reference", event_id: id } });
          const { reason } = await legacy.becomes("ended");
          assert.equal(reason, "user_hangup");
          await expectNobody();
          since = Date.now();
          await legacy.place({ room: dm.room });
          await ringOf(since);
          await legacy.hangup();
          await expectNobody();
        });

        sealedTest("a call that nobody answers rings for as long as it lives", async () => {
          await open("join_existing");
          const since = Date.now();
          await legacy.place({ room: dm.room, lifetime: BRIEF_MS });
          await ringOf(since, BRIEF_MS);
          await expectMembers(alice, dm.room, []);
          assert.ok(Date.now() - since > BRIEF_MS - 1_000, "it was given up early");
          assert.equal((await legacy.state()).state, "invite_sent");
          await legacy.hangup();
        });

        longTest("a call that nobody answers rings for a minute, by matrix-js-sdk's own clock", async () => {
          await open("join_existing");
          const since = Date.now();
          await legacy.place({ room: dm.room });
          await ringOf(since);
          await eventually("the caller's client gives up", 70_000, async () => (await legacy.state()).state === "ended" || undefined);
          assert.equal((await legacy.state()).reason, "invite_timeout");
          await expectNobody();
        });

        test("Element Call rings bob, who is in the call upon answering", async () => {
          await open("start_call_dm");
          await call.join();
          const { opponent } = await legacy.becomes(incoming, "ringing");
          assert.equal(opponent, dm.speaker.id);
          await expectMembers(alice, dm.room, [alice]);
          await legacy.answer();
          await expectTalk();
          await legacy.hangup();
          await expectNobody(); // Element Call leaves when the other one does
        });

        sealedTest("rejected, or turned away by somebody who is busy, whoever rings is told", async (t) => {
          for (const refuse of ["reject", "turnAway"]) {
            const engaged = refuse === "turnAway" && (await engage(t));
            await open("start_call_dm");
            const since = Date.now();
            await call.join();
            await legacy.becomes(incoming, "ringing");
            const { id } = await seen("alice's ring", RING, since);
            await legacy[refuse]();
            const decline = await seen("the decline", DECLINE, since, ({ sender }) => sender === bob.id);
            assert.deepEqual(decline.content["m.relates_to"], { rel_type: "m.reference", event_id: id });
            await expectNobody(); // Element Call leaves when told
            if (engaged) {
              assert.equal((await legacy.state(1)).state, "connected");
              await engaged.receives();
              await engaged.hangup();
            }
          }
        });

        /** Has bob in a call with carol, between their older clients, and returns hers, which is closed at the end. */
        async function engage(t) {
          const other = await LegacyClient.open(browser, carol, { logs });
          t.after(() => other.close());
          await legacy.place({ room: apart });
          await other.becomes(incoming, "ringing");
          await other.answer();
          await legacy.becomes("connected");
          return other;
        }

        sealedTest("a ring that nobody heeds is over when its time is", async () => {
          await open("join_existing");
          await call.join();
          await expectMembers(alice, dm.room, [alice]);
          const since = Date.now();
          await ring(BRIEF_MS);
          await legacy.becomes(incoming, "ringing");
          const { reason } = await legacy.becomes("ended");
          assert.equal(reason, "invite_timeout");
          assert.ok(Date.now() - since > BRIEF_MS - 1_000, "it was given up early");
          await call.leave();
          await expectNobody();
        });

        sealedTest("given up by whoever rings, it rings no more", async () => {
          await open("start_call_dm");
          await call.join();
          await legacy.becomes(incoming, "ringing");
          await call.leave();
          await expectNobody();
        });

        sealedTest("answered on two devices at once, one is in the call, and a second call there is turned away", async (t) => {
          const second = await LegacyClient.open(browser, bob, { logs, keys: true });
          t.after(() => second.close());
          await open("start_call_dm");
          await call.join();
          const pages = [legacy, second];
          await Promise.all(pages.map((page) => page.becomes(incoming, "ringing")));
          await Promise.all(pages.map((page) => page.answer()));
          const [winner, loser] = await eventually("one of two is in the call", PATIENCE_MS, async (saw) => {
            const states = await Promise.all(pages.map(async (page) => (await page.state()).state));
            saw(states);
            if (states.join() === "connected,ended") return pages;
            return states.join() === "ended,connected" ? pages.toReversed() : undefined;
          });
          await expectTalk(winner);
          await loser.place({ room: dm.room });
          assert.equal((await loser.becomes("ended")).reason, "user_busy");
          assert.equal((await winner.state()).state, "connected");
          await call.leave();
          await winner.becomes("ended");
          await expectMembers(alice, dm.room, []);
        });

        /** The states of bob's two latest calls. His client says nothing of an invitation that it hears of together with its end. */
        async function statesOf(ids, saw) {
          const latest = [await legacy.state(0), await legacy.state(1)];
          saw(latest);
          return ids.map((id) => latest.find((one) => one?.id === id)?.state ?? "ended");
        }

        /** Has bob's client call with this id and invitee when its own call and the bridge's cross, and returns the id of the one that is left. */
        async function cross(options) {
          const hear = await legacy.deafen();
          let ours;
          try {
            await open("start_call_dm");
            const since = Date.now();
            await call.join();
            ours = await seen("the bridge's invitation", "m.call.invite", since, ({ sender }) => sender === dm.speaker.id);
            await legacy.place({ room: dm.room, ...options });
            await legacy.becomes("invite_sent");
          } finally {
            await hear();
          }
          const ids = [options.id, ours.content.call_id];
          const winner = await eventually("one of two calls is left", PATIENCE_MS, async (saw) => {
            const states = await statesOf(ids, saw);
            return states.toSorted().join() === "connected,ended" ? ids[states.indexOf("connected")] : undefined;
          });
          await flowing(call, [call, shown()]);
          await expectMembers(alice, dm.room, [alice, dm.member]);
          await call.leave();
          await eventually("it is over", PATIENCE_MS, async (saw) => (await statesOf(ids, saw)).every((state) => state === "ended") || undefined);
          await expectMembers(alice, dm.room, []);
          return winner === options.id ? "bob's" : "the bridge's";
        }

        test("two calls that cross are one: that with the smaller id", async () => {
          assert.equal(await cross({ id: "!" }), "bob's");
          if (dm === plain) assert.equal(await cross({ id: "~", invitee: alice.id }), "the bridge's"); // without an invitee matrix-js-sdk does not see it
        });

        sealedTest("two calls that cross are one where the older client does not see that they do", async () => {
          assert.equal(await cross({ id: "~" }), "bob's");
        });

        sealedTest("a callserver that is killed hangs up when it is back, and calls go on as before", async () => {
          await open("join_existing");
          await legacy.place({ room: dm.room });
          await expectMembers(alice, dm.room, [dm.member]);
          await call.join();
          await expectTalk();
          await stack.callserver.kill();
          await stack.startCallserver();
          await legacy.becomes("ended");
          await expectMembers(alice, dm.room, [alice]);
          await legacy.place({ room: dm.room });
          await expectTalk();
          await legacy.hangup();
          await call.leave();
          await expectNobody();
        });

        if (dm === sealed) {
          test("asked for by a command, the bot rings, encrypted", async () => {
            await open("join_existing");
            await call.join();
            await expectMembers(alice, dm.room, [alice]); // Element Call shows the call before it says so
            const since = Date.now();
            await send("m.room.message", { msgtype: "m.text", body: `!call ring ${bob.id}` });
            const { content, encrypted } = await seen("the bot's ring", RING, since, ({ sender }) => sender === bot.id);
            assert.ok(encrypted);
            assert.equal(content["m.relates_to"].event_id, (await membershipOf(alice)).event_id);
            assert.ok(!(await events(alice, dm.room)).some(({ type }) => type === RING), "a ring is not encrypted");
            await call.leave();
            await expectMembers(alice, dm.room, []);
          });
        }

        longTest("a ring of Element Call's that nobody heeds is over when it gives up", async () => {
          await open("start_call_dm");
          await call.join();
          const since = Date.now();
          await legacy.becomes(incoming, "ringing");
          await eventually("the older client is called no more", 100_000, async () => (await legacy.state()).state === "ended" || undefined);
          assert.match((await legacy.state()).reason, /^(invite_timeout|user_hangup)$/); // the ring's time, or hers who rang
          assert.ok(Date.now() - since > 50_000, "it was given up early");
          await expectNobody();
        });

        longTest("a call that was answered goes on when the time of its ring is over", async () => {
          await open("start_call_dm");
          await call.join();
          await legacy.becomes(incoming, "ringing");
          await legacy.answer();
          await expectTalk();
          await new Promise((resolve) => setTimeout(resolve, 95_000));
          await expectTalk();
          await legacy.hangup();
          await expectNobody();
        });
      });
    }
  });
}
