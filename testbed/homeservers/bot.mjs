// callserver's bot at real homeservers: it follows and declines invitations,
// answers commands in threads, moderates the call by power level, tells the one
// who was refused why and nobody else, and leaves when everybody has left.
import assert from "node:assert/strict";
import { readFile, rm } from "node:fs/promises";
import { after, before, describe, test } from "node:test";

import { eventually } from "../process/eventually.mjs";
import { freePorts, stopAll } from "../process/process.mjs";
import { connect } from "./caller.mjs";
import { ground, serve } from "./ground.mjs";
import { request } from "./homeserver.mjs";

/** Milliseconds until a homeserver has pushed an event and the bot's answer is in the room. */
const PATIENCE_MS = 15_000;

const ELEMENT_CALL = "https://call.example.org";

after(stopAll); // what a start that failed left behind

/** A homeserver with alice, bob and carol, and a callserver at it that alice and bob may invite. */
async function start(kind) {
  const here = await ground(kind, "bot");
  const { homeserver, directory, logs } = here;
  const ports = await freePorts(4);
  const { narrow, wide } = await homeserver.registrations(directory, `http://127.0.0.1:${ports[0]}`);
  await homeserver.start({ directory, logs, callserver: `http://127.0.0.1:${ports[0]}`, registrations: [narrow, wide] });
  const more = `bot:
  invite: ["@alice:${homeserver.name}", "@b?b:${homeserver.name}"]
  element_call: ${ELEMENT_CALL}
`;
  const { callserver, url } = await serve(here, "callserver", [narrow, wide], { ports, more });
  const users = [];
  for (const name of ["alice", "bob", "carol"]) users.push(await homeserver.register(name, `${name}-password`));
  const token = /^as_token: (.*)$/m.exec(await readFile(narrow, "utf8"))[1];
  return { homeserver, callserver, url, directory, users, token, bot: { id: `@_callserver:${homeserver.name}` } };
}

/** What is said in a room, as one of its users sees it. */
class Talk {
  #said = 0;

  constructor(user, room) {
    Object.assign(this, { user, room, path: `v3/rooms/${encodeURIComponent(room)}` });
  }

  /** The room's latest events, the newest first. */
  async events() {
    return (await this.user.request("GET", `${this.path}/messages?dir=b&limit=50`)).chunk;
  }

  /** Says something and returns the event's id. */
  async say(body, user = this.user) {
    const { event_id } = await user.request("PUT", `${this.path}/send/m.room.message/${user.device}${this.#said++}`, { msgtype: "m.text", body });
    return event_id;
  }

  /** Gives a command, and returns the bot's answer to it. */
  async ask(body, user = this.user) {
    const command = await this.say(body, user);
    return eventually(`an answer to ${body}`, PATIENCE_MS, async () =>
      (await this.events()).find(({ type, content }) => type === "m.room.message" && content["m.relates_to"]?.["m.in_reply_to"]?.event_id === command),
    );
  }

  /** Gives a command and checks the answer's text. */
  async expect(body, pattern, user = this.user) {
    assert.match((await this.ask(body, user)).content.body, pattern);
  }

  async membership(of) {
    const events = await this.user.state(this.room, "m.room.member");
    return events.find(({ state_key }) => state_key === of.id)?.content.membership;
  }

  async becomes(of, membership) {
    await eventually(`${of.id} is ${membership}`, PATIENCE_MS, async (seen) => {
      const is = await this.membership(of);
      seen(is);
      return is === membership || undefined;
    });
  }
}

for (const kind of ["dendrite", "synapse"]) {
  describe(`the bot at ${kind}`, () => {
    let world, alice, bob, carol, bot, talk;
    before(async () => {
      world = await start(kind);
      [alice, bob, carol] = world.users;
      bot = world.bot;
      talk = new Talk(alice, await alice.createRoom({ name: "talk", encrypted: false, invite: [bob, carol] }));
      for (const user of [bob, carol]) await user.join(talk.room);
    });
    after(async () => {
      await world?.callserver.stop();
      await world?.homeserver.stop();
      if (world) await rm(world.directory, { recursive: true, force: true });
    });

    const token = async (user) => {
      const body = JSON.stringify({ room: talk.room, openid_token: await user.openID(), device_id: user.device });
      const response = await fetch(`${world.url}/livekit/jwt/sfu/get`, { method: "POST", body });
      return { status: response.status, body: await response.json() };
    };
    const joins = async (user) => {
      const { status, body } = await token(user);
      assert.equal(status, 200, JSON.stringify(body));
      return connect(body);
    };

    test("an invitation by somebody else is declined", async () => {
      const other = new Talk(carol, await carol.createRoom({ name: "not for bots", encrypted: false }));
      await carol.act("invite", bot, other.room);
      await other.becomes(bot, "leave");
    });

    test("an invitation is followed, and the bot is marked as no person", async () => {
      const [levels] = await alice.state(talk.room, "m.room.power_levels");
      levels.content.users[bot.id] = levels.content.state_default;
      await alice.request("PUT", `${talk.path}/state/m.room.power_levels/`, levels.content);
      await alice.act("invite", bot, talk.room);
      await talk.becomes(bot, "join");
      await eventually("the functional members", PATIENCE_MS, async () => {
        const [listed] = await alice.state(talk.room, "io.element.functional_members");
        return listed?.content.service_members.includes(bot.id) || undefined;
      });
    });

    test("a command is answered by a notice in its thread, in text and HTML", async () => {
      const { sender, content } = await talk.ask("!call help", bob);
      assert.equal(sender, bot.id);
      assert.equal(content.msgtype, "m.notice");
      assert.equal(content["m.relates_to"].rel_type, "m.thread");
      assert.equal(content["m.relates_to"].event_id, content["m.relates_to"]["m.in_reply_to"].event_id);
      assert.match(content.body, /^- !call status: /m);
      assert.match(content.formatted_body, /<li><code>!call status<\/code>: /);
      const { content: link } = await talk.ask("!call link", bob);
      const [url] = link.body.match(/https:.*/);
      assert.equal(url.startsWith(`${ELEMENT_CALL}/room/#?`), true, url);
      assert.equal(new URLSearchParams(url.split("#?")[1]).get("roomId"), talk.room);
    });

    test("the call is moderated by who may, and the refused learn why, alone", async () => {
      await talk.expect("!call status", /^Nobody is in a call/);
      const calls = [await joins(alice), await joins(bob)];
      await talk.expect("!call status", new RegExp(`^In the call: 2 people from 1 homeserver.*\\n- ${alice.id}: .*\\n- ${bob.id}: `));
      await talk.expect("!call lock", /^Only those/, bob);
      await talk.expect("!call lock", /^The call is locked/);
      const refused = await token(carol);
      assert.deepEqual([refused.status, refused.body.errcode], [403, "M_FORBIDDEN"]);

      await talk.expect("!call why", /^I have written to you alone/, carol);
      const { rooms } = await carol.request("GET", "v3/sync");
      const [[direct, { invite_state }]] = Object.entries(rooms.invite);
      assert.ok(invite_state.events.some(({ content }) => content.is_direct), "the invitation is to a room for two");
      await carol.join(direct);
      const told = (await new Talk(carol, direct).events()).find(({ type }) => type === "m.room.message");
      assert.match(told.content.body, /A moderator had locked the call/);
      assert.match(told.content.body, /from 127\.0\.0\.1/);
      assert.doesNotMatch(JSON.stringify(await talk.events()), /127\.0\.0\.1/, "the room is not told the address");

      await talk.expect(`!call kick ${bob.id}`, /^Removed from the call: /);
      await calls[1].ended;
      assert.equal((await token(bob)).status, 403, "the call is locked for who was removed, too");
      await talk.expect("!call unlock", /^The call is open again/);
      assert.equal((await token(bob)).status, 200);
      assert.equal(calls[0].open, true, "alice stays");
      await talk.expect("!call end", /^The call is over, for 1 person/);
      await calls[0].ended;
    });

    test("a ring is the asker's own", async () => {
      const call = await joins(alice);
      const key = `_${alice.id}_${alice.device}_m.call`;
      const focus = { type: "livekit", livekit_service_url: `${world.url}/livekit/jwt` };
      const content = { application: "m.call", call_id: "", scope: "m.room", device_id: alice.device, expires: 14_400_000, focus_active: { type: "livekit", focus_selection: "multi_sfu" }, foci_preferred: [focus] };
      const joined = await alice.request("PUT", `${talk.path}/state/org.matrix.msc3401.call.member/${encodeURIComponent(key)}`, content);
      await talk.expect(`!call ring ${bob.id}`, /^Ringing /);
      const ring = (await talk.events()).find(({ type }) => type === "org.matrix.msc4075.rtc.notification");
      assert.equal(ring.sender, alice.id);
      assert.equal(ring.content["m.relates_to"].event_id, joined.event_id);
      assert.deepEqual(ring.content["m.mentions"], { user_ids: [bob.id] });
      call.close();
    });

    test("the bot leaves when everybody has left", async () => {
      for (const user of [bob, carol, alice]) await user.leave(talk.room);
      await eventually("the bot is gone", PATIENCE_MS, async (seen) => {
        const url = `${world.homeserver.url}/_matrix/client/v3/joined_rooms?user_id=${encodeURIComponent(bot.id)}`;
        const { joined_rooms: rooms } = await request("GET", url, { token: world.token });
        seen(rooms);
        return !rooms.includes(talk.room) || undefined;
      });
    });
  });
}
