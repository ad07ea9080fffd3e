// Two homeservers and two callservers that federate: @alice:one and @bob:two in
// one call of Element Call, each publishing at their own server and watching at
// the other's.
//
//   node testbed/federation/test.mjs [dendrite+dendrite synapse+dendrite ...]
import assert from "node:assert/strict";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { busyMachine, launch, PATIENCE_MS } from "../elementcall/call.mjs";
import { expectMedia } from "../elementcall/media.mjs";
import { expectEncryption, Meeting } from "../elementcall/meeting.mjs";
import { denial, expectAdmitted, expectRefused, remove, TOLD_MS } from "../elementcall/removal.mjs";
import { peer } from "../homeservers/homeserver.mjs";
import { outputs } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { stopAll, stopOnSignals } from "../process/process.mjs";
import { Stack } from "../stack/stack.mjs";

const pairs = process.argv.length > 2 ? process.argv.slice(2) : ["synapse+dendrite"];
let browser;

stopOnSignals();
before(async () => {
  browser = await launch();
});
after(stopAll); // the browser, and what a start that failed left behind

/** Where the homeservers are: server ACLs tell them apart by this. */
const hosts = ["localhost", "127.0.0.1"];

/** Starts both sides: alice is at the first, bob at the second. */
async function start(pair, logs) {
  const sides = [];
  for (const [i, kind] of pair.split("+").entries()) {
    await (await peer(kind)).prepare();
    const directory = join(logs, ["one", "two"][i]);
    await mkdir(directory, { recursive: true });
    sides.push({ kind, host: hosts[i], logs: directory, names: [["alice"], ["bob"]][i], rooms: {}, elementCall: busyMachine });
  }
  return Stack.federate(sides);
}

for (const pair of pairs) {
  describe(pair, () => {
    const logs = join(outputs, `federation-${pair}`);
    const rooms = []; // encrypted, and not
    let stacks = [];
    let meeting;
    before(async () => {
      await rm(logs, { recursive: true, force: true });
      stacks = await start(pair, logs);
      const seats = stacks.map((stack) => ({ user: stack.users[0], stack }));
      const [alice, bob] = seats.map(({ user }) => user);
      for (const encrypted of [true, false]) {
        const room = await alice.createRoom({ name: "between homeservers", encrypted, invite: [bob] });
        await eventually("the invitation arrives", PATIENCE_MS, () => bob.join(room));
        rooms.push(room);
      }
      meeting = await Meeting.create(browser, seats, { logs });
    });
    after(async () => {
      await meeting?.close();
      for (const stack of stacks.toReversed()) await stack.stop();
    });

    test("each publishes at the own server and watches at the other's", async (t) => {
      meeting.move("call", rooms[0]);
      await meeting.play(async ({ calls, room }) => {
        await meeting.open();
        await meeting.join();
        await expectMedia(calls, (text) => t.diagnostic(text));
        await expectEncryption(calls, true);
        for (const [i, call] of calls.entries()) await expectHome(stacks[i], call, room);
        for (const [i, call] of calls.entries()) expectTokens(call, stacks[i], stacks[1 - i]);
      });
    });

    test("who is banned gets no more media of the server that bans, until invited again", async () => {
      const [one] = stacks;
      meeting.move("ban", rooms[1]);
      await meeting.play(async ({ calls: [alice, bob], room }) => {
        const act = (what) => alice.user.act(what, bob.user, room);
        await meeting.open();
        await meeting.join();
        const took = await remove(meeting, bob, one, () => act("ban"));
        assert.ok(took < TOLD_MS, `bytes arrived ${took} ms after the ban`);
        await expectRefused(bob, one, room);
        await bob.quit();
        await act("unban");
        await expectRefused(bob, one, room);
        await act("invite");
        await eventually("the invitation arrives", PATIENCE_MS, () => bob.user.join(room));
        await bob.open(bob.stack.site.link(bob.user, { room }));
        await bob.join();
        await expectMedia([alice, bob], (text) => meeting.tell(text));
      });
    });

    test("whose homeserver the room's server ACL denies is disconnected, and refused until it is lifted", async (t) => {
      const [one] = stacks;
      meeting.print = (text) => t.diagnostic(text);
      meeting.move("acl", rooms[1]); // where the call goes on
      await meeting.play(async ({ calls: [alice, bob], room }) => {
        const limit = (deny) => alice.user.setState(room, "m.room.server_acl", { allow: ["*"], deny, allow_ip_literals: true });
        const took = await remove(meeting, bob, one, () => limit([hosts[1]]), denial);
        assert.ok(took < TOLD_MS, `bytes arrived ${took} ms after the server ACL`);
        assert.equal(await joined(alice.user, room, bob.user), true, "bob is still joined");
        await expectRefused(bob, one, room, /does not admit your homeserver/);
        await limit([]);
        await expectAdmitted(bob, one, room);
      });
    });

    test("a user of a denied server is refused, although joined", async () => {
      const [one] = stacks;
      const [, room] = rooms;
      const [alice, bob] = meeting.calls;
      await one.callserver.stop();
      await one.startCallserver({ CALLSERVER_SERVERS_DENY: `["${stacks[1].homeserver.name}"]` });
      await expectAdmitted(alice, one, room); // and so holds the call open for others
      assert.equal(await joined(alice.user, room, bob.user), true, "bob is joined");
      await expectRefused(bob, one, room, /Users of your homeserver may not use this server/);
    });
  });
}

/** Whether a user sees another one in a room. */
async function joined(witness, room, user) {
  const events = await witness.state(room, "m.room.member");
  return events.some(({ state_key, content }) => state_key === user.id && content.membership === "join");
}

/** At this server its own user publishes sound and picture, and one other watches without the right to publish. */
async function expectHome(stack, call, room) {
  const present = await eventually(`two participants at ${stack.homeserver.name}`, PATIENCE_MS, async (seen) => {
    const participants = await stack.participants(room);
    seen(participants);
    return participants.length === 2 ? participants : undefined;
  });
  const own = `${call.user.id}:${call.device}`;
  const local = present.find(({ identity }) => identity === own);
  assert.ok(local, `${own} is among ${present.map(({ identity }) => identity)}`);
  assert.equal(local.tracks?.length, 2, "sound and picture of the own user");
  const [visitor] = present.filter((participant) => participant !== local);
  assert.deepEqual(visitor.tracks ?? [], [], "the visitor publishes nothing");
  assert.equal(Boolean(visitor.permission?.can_publish), false, "the visitor may not publish");
  assert.equal(Boolean(visitor.permission?.can_publish_data), false, "the visitor may not send data");
  assert.equal(visitor.permission?.can_subscribe, true, "the visitor may watch");
}

const grant = ({ jwt }) => JSON.parse(Buffer.from(jwt.split(".")[1], "base64url")).video;

/** Element Call got a token to publish at the own server only. */
function expectTokens(call, own, other) {
  const at = (stack) => call.admissions.filter(({ service }) => service === stack.serviceURL).map(grant);
  assert.ok(at(own).some(({ canPublish }) => canPublish !== false), `${call.name} may publish at home: ${JSON.stringify(at(own))}`);
  assert.ok(at(other).length > 0, `${call.name} got a token at the other server`);
  assert.ok(at(other).every(({ canPublish }) => canPublish === false), `${call.name} may not publish elsewhere: ${JSON.stringify(at(other))}`);
}
