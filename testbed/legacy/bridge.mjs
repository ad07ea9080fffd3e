// Calls of before MatrixRTC in the call of the Matrix room: matrix-js-sdk's own
// 1:1 call stack on one side, Element Call on the other, callserver between.
import assert from "node:assert/strict";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { busyMachine, Call, launch, PATIENCE_MS } from "../elementcall/call.mjs";
import { flowing } from "../elementcall/media.mjs";
import { expectTiles } from "../elementcall/meeting.mjs";
import { peer } from "../homeservers/homeserver.mjs";
import { eventually } from "../process/eventually.mjs";
import { outputs } from "../process/cache.mjs";
import { stopAll, stopOnSignals } from "../process/process.mjs";
import { Stack } from "../stack/stack.mjs";
import { widgetHost } from "../elementcall/widget/bundle.mjs";
import { LegacyClient } from "./client.mjs";

stopOnSignals();
let browser;
before(async () => (browser = await launch()));
after(stopAll);

const MEMBER = "org.matrix.msc3401.call.member";
const RING = "org.matrix.msc4075.rtc.notification";

/** Says something in a room. */
let said = 0;
const say = (user, room, body) =>
  user.request("PUT", `v3/rooms/${encodeURIComponent(room)}/send/m.room.message/${user.name}${said++}`, { msgtype: "m.text", body });

/** Waits until nobody is declared a member of the room's call but these users. */
const expectMembers = (user, room, users) =>
  eventually(`members of the call: ${users.map(({ id }) => id).join(", ") || "nobody"}`, PATIENCE_MS, async (seen) => {
    const members = (await user.state(room, MEMBER)).filter(({ content }) => content.device_id);
    seen(members.map(({ state_key: key }) => key));
    return members.map(({ sender }) => sender).sort().join() === users.map(({ id }) => id).sort().join() || undefined;
  });

/** The latest events of a room, the newest first. */
const events = async (user, room) => (await user.request("GET", `v3/rooms/${encodeURIComponent(room)}/messages?dir=b&limit=60`)).chunk;

/** Has the bot in the room. */
async function inviteBot(user, bot, room) {
  await user.act("invite", bot, room);
  await eventually("the bot is in the room", PATIENCE_MS, async () => {
    const members = await user.state(room, "m.room.member");
    return members.some(({ state_key: key, content }) => key === bot.id && content.membership === "join") || undefined;
  });
}

/** Gives a command and waits for the bot's answer. */
async function command(user, room, body) {
  const { event_id: id } = await say(user, room, body);
  return eventually(`an answer to ${body}`, PATIENCE_MS, async () =>
    (await events(user, room)).find(({ content }) => content["m.relates_to"]?.["m.in_reply_to"]?.event_id === id)?.content.body,
  );
}

for (const kind of process.env.HOMESERVER?.split(",") ?? ["synapse", "dendrite"]) {
  describe(`the bridge at ${kind}`, () => {
    const logs = join(outputs, `bridge-${kind}`);
    let stack, alice, bob, carol, bot, room, two, call, legacy;
    before(async () => {
      await (await peer(kind)).prepare();
      await rm(logs, { recursive: true, force: true });
      await mkdir(logs, { recursive: true });
      stack = await Stack.start({ kind, logs, names: ["alice", "bob", "carol"], rooms: { many: { encrypted: false }, sealed: { encrypted: true } }, widget: await widgetHost(), elementCall: busyMachine });
      [alice, bob, carol] = stack.users;
      bot = { id: `@_callserver:${stack.homeserver.name}`, name: "_callserver" };
      room = stack.rooms.many;
      two = await alice.createRoom({ name: "two", encrypted: false, invite: [carol] });
      await carol.join(two);
      for (const where of [room, two]) await inviteBot(alice, bot, where);
      call = await Call.create(browser, alice, { widget: false, logs });
      legacy = await LegacyClient.open(browser, carol, { logs });
    });
    after(async () => {
      await call?.report("bridge");
      await legacy?.report("bridge");
      await stack?.report(logs);
      await call?.close();
      await legacy?.close();
      await stack?.stop();
    });

    test("who calls the bot is in the room's call, under the own name once agreed", async () => {
      assert.match(await command(carol, room, "!call bridge me on"), /^You agreed/);
      await call.open(stack.site.link(alice, { room }));
      await call.join();
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectTiles(call, [alice, carol]);
      await expectMembers(alice, room, [alice, carol]);
      await Promise.all([flowing(call, [call, carol]), legacy.receives()]);
    });

    test("mute is told both ways, and who is on the line", async () => {
      await legacy.becomes(({ identity }) => identity?.id === alice.id, "told who speaks");
      await call.toggleMicrophone();
      await legacy.becomes(({ feeds }) => feeds.some(({ audioMuted }) => audioMuted), "told of the mute");
      await call.toggleMicrophone();
      await legacy.becomes(({ feeds }) => feeds.every(({ audioMuted }) => !audioMuted), "told of the unmute");
      await legacy.muteAudio(true);
      await eventually("carol's microphone is muted in the room", PATIENCE_MS, async (seen) => {
        const [participant] = (await stack.participants(room)).filter(({ identity }) => identity.startsWith(carol.id));
        seen(participant?.tracks);
        return participant?.tracks?.some(({ type, muted }) => muted && type !== "VIDEO") || undefined;
      });
    });

    test("a hang-up ends it, and nothing is left", async () => {
      await legacy.hangup();
      await expectTiles(call, [alice]);
      await expectMembers(alice, room, [alice]);
    });

    test("a moderator removes the caller", async () => {
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectTiles(call, [alice, carol]);
      await command(alice, room, `!call kick ${carol.id}`);
      await legacy.becomes("ended");
      await expectMembers(alice, room, [alice]);
    });

    const ringOf = (sender) =>
      eventually(`a ring by ${sender.id}`, PATIENCE_MS, async () => (await events(alice, two)).find((event) => event.type === RING && event.sender === sender.id && !rung.has(event.event_id)))
        .then((ring) => rung.add(ring.event_id) && ring);
    const membershipOf = async (user) => (await alice.state(two, MEMBER)).find(({ sender, content }) => sender === user.id && content.device_id);
    const rung = new Set();
    /** Has alice's client ring carol, as Element X does in a room for two. */
    const ring = async () => {
      const { event_id: id } = await membershipOf(alice);
      return alice.request("PUT", `v3/rooms/${encodeURIComponent(two)}/send/${RING}/ring${said++}`, {
        "m.mentions": { user_ids: [carol.id], room: false },
        notification_type: "ring",
        "m.relates_to": { rel_type: "m.reference", event_id: id },
        sender_ts: Date.now(),
        lifetime: 30_000,
        "m.call.intent": "video",
      });
    };

    test("in a room for two a call rings the other one, and is answered by joining", async () => {
      await call.leave();
      await call.quit();
      await command(alice, two, "!call bridge me on");
      await legacy.place({ room: two });
      const { content } = await ringOf(carol);
      assert.equal(content["m.relates_to"].event_id, (await membershipOf(carol)).event_id);
      assert.deepEqual(content["m.mentions"].user_ids, [alice.id]);
      assert.ok(content.lifetime > 40_000 && content.lifetime <= 90_000, `${content.lifetime}`);
      await call.open(stack.site.link(alice, { room: two }));
      await call.join();
      const { opponent } = await legacy.becomes("connected");
      assert.equal(opponent, alice.id);
      await expectTiles(call, [alice, carol]);
      await Promise.all([flowing(call, [call, carol]), legacy.receives()]);
      await call.leave();
      await legacy.becomes("ended");
      await expectMembers(alice, two, []);
      await call.quit();
    });

    test("declined, it is rejected; given up, it leaves nothing behind", async () => {
      await legacy.place({ room: two });
      const { event_id: id } = await ringOf(carol);
      await alice.request("PUT", `v3/rooms/${encodeURIComponent(two)}/send/org.matrix.msc4310.rtc.decline/no`, { "m.relates_to": { rel_type: "m.reference", event_id: id } });
      await legacy.becomes("ended");
      await expectMembers(alice, two, []);
      await legacy.place({ room: two });
      await ringOf(carol);
      await legacy.hangup();
      await expectMembers(alice, two, []);
    });

    test("where the bot is not, the two see and speak for themselves", async () => {
      const alone = await alice.createRoom({ name: "without the bot", encrypted: false, invite: [carol] });
      await carol.join(alone);
      await legacy.page.waitForTimeout(1_000); // a room that was just joined: the page has to see it
      await legacy.place({ room: alone });
      const { event_id: id } = await eventually("a ring", PATIENCE_MS, async () =>
        (await events(alice, alone)).find(({ type, sender }) => type === RING && sender === carol.id),
      );
      await alice.request("PUT", `v3/rooms/${encodeURIComponent(alone)}/send/org.matrix.msc4310.rtc.decline/no`, { "m.relates_to": { rel_type: "m.reference", event_id: id } });
      await legacy.becomes("ended");
      await expectMembers(alice, alone, []);
    });

    test("a ring calls the older client, and its owner is in the call upon answering", async () => {
      await call.open(stack.site.link(alice, { room: two }));
      await call.join();
      await expectMembers(alice, two, [alice]);
      await ring();
      const { opponent } = await legacy.becomes(({ incoming, state }) => incoming && state === "ringing", "ringing");
      assert.equal(opponent, alice.id);
      await expectMembers(alice, two, [alice]);
      await legacy.answer();
      await legacy.becomes("connected");
      await expectTiles(call, [alice, carol]);
      await Promise.all([flowing(call, [call, carol]), legacy.receives()]);
      await legacy.hangup();
      await expectMembers(alice, two, [alice]);
    });

    test("rejected, whoever rings is told", async () => {
      const { event_id: id } = await ring();
      await legacy.becomes(({ incoming, state }) => incoming && state === "ringing", "ringing");
      await legacy.reject();
      await eventually("a decline", PATIENCE_MS, async () =>
        (await events(alice, two)).find(({ type, sender, content }) => type === "org.matrix.msc4310.rtc.decline" && sender === carol.id && content["m.relates_to"].event_id === id),
      );
    });

    test("given up by whoever rings, it rings no more; answered on one of two devices, on the other neither", async () => {
      const second = await LegacyClient.open(browser, carol, { logs });
      await ring();
      const ringing = ({ incoming, state }) => incoming && state === "ringing";
      await Promise.all([legacy.becomes(ringing, "ringing"), second.becomes(ringing, "ringing")]);
      await second.answer();
      await second.becomes("connected");
      await legacy.becomes("ended");
      await expectTiles(call, [alice, carol]);
      await call.leave();
      await second.becomes("ended");
      await expectMembers(alice, two, []);
      await second.close();
      await call.quit();
    });

    test("a callserver that is killed hangs up when it is back, and leaves nothing behind", async () => {
      await call.open(stack.site.link(alice, { room }));
      await call.join();
      await legacy.place({ room });
      await legacy.becomes("connected");
      await expectTiles(call, [alice, carol]);
      stack.callserver.child.kill("SIGKILL");
      await stack.callserver.exited;
      await stack.startCallserver();
      await legacy.becomes("ended");
      await expectMembers(alice, room, [alice]);
    });

    test("in an encrypted room, switched on, the bot's device is in the call, with keys", async () => {
      await call.leave();
      await call.close();
      const sealed = stack.rooms.sealed;
      await inviteBot(alice, bot, sealed);
      const page = await LegacyClient.open(browser, bob, { logs, keys: true });
      call = await Call.create(browser, alice, { widget: true, logs });
      await call.open(stack.site.link(alice, { room: sealed, widget: true }));
      await call.join();
      await say(alice, sealed, "!call bridge on");
      await page.page.waitForTimeout(3_000);
      await page.place({ room: sealed });
      await page.becomes("connected");
      await expectTiles(call, [alice, bot]);
      await Promise.all([flowing(call, [call, bot]), page.receives()]);
      await page.hangup();
      await expectMembers(alice, sealed, [alice]);
      await page.report("sealed");
      await page.close();
    });
  });
}
