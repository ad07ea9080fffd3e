// What the homeserver must hold about a call: the membership events of MSC4143
// in the forms that Element Call sends, state events in its compatibility mode
// and sticky events in matrix_2_0. And whom callserver must see for them.
import { isDeepStrictEqual } from "node:util";

import { hash, slot } from "../stack/names.mjs";
import { eventually } from "../process/eventually.mjs";
import { PATIENCE_MS } from "./call.mjs";

const type = "org.matrix.msc3401.call.member";
const stickyType = "org.matrix.msc4143.rtc.member";

const stateKey = (call) => `_${call.user.id}_${call.device}_m.call`;

async function memberships(stack, room) {
  const events = await stack.users[0].state(room, type);
  return events.filter((event) => Object.keys(event.content).length > 0);
}

/** Waits until exactly these calls have a membership event, and checks each of them. */
export async function expectMembers(stack, calls, room) {
  const wanted = calls.map(stateKey).sort();
  const events = await eventually("membership events of the three", PATIENCE_MS, async (seen) => {
    const events = await memberships(stack, room);
    const keys = events.map((event) => event.state_key).sort();
    seen(keys);
    return isDeepStrictEqual(keys, wanted) ? events : undefined;
  });
  for (const call of calls) {
    const event = events.find(({ state_key }) => state_key === stateKey(call));
    expectMember(event, call, room, stack.serviceURL);
  }
}

function expectMember({ sender, content }, call, room, serviceURL) {
  const [focus] = content.foci_preferred ?? [];
  const facts = {
    sender: [sender, call.user.id],
    device_id: [content.device_id, call.device],
    application: [content.application, "m.call"],
    call_id: [content.call_id, ""],
    scope: [content.scope, "m.room"],
    focus_active: [content.focus_active, { type: "livekit", focus_selection: "multi_sfu" }],
    "foci_preferred[0].type": [focus?.type, "livekit"],
    "foci_preferred[0].livekit_service_url": [focus?.livekit_service_url, serviceURL],
    "foci_preferred[0].livekit_alias": [focus?.livekit_alias, room],
  };
  expectFacts(facts, call, content);
}

function expectFacts(facts, call, content) {
  for (const [name, [got, want]] of Object.entries(facts)) {
    if (!isDeepStrictEqual(got, want)) {
      throw new Error(
        `membership of ${call.name}: ${name} is ${JSON.stringify(got)}, want ${JSON.stringify(want)}; event: ${JSON.stringify(content)}`,
      );
    }
  }
}

/** Waits until the call's membership event is empty. */
export async function expectNoMember(stack, call, room) {
  await eventually(`the membership of ${call.name} is gone`, PATIENCE_MS, async (seen) => {
    const keys = (await memberships(stack, room)).map((event) => event.state_key);
    seen(keys);
    return keys.includes(stateKey(call)) ? undefined : true;
  });
}

/** The latest sticky membership of each device that is in the call: leaving replaces the content by the sticky key alone. */
async function stickyMemberships(reader, room) {
  const latest = new Map();
  for (const event of await reader.sticky(room, stickyType)) latest.set(`${event.sender} ${event.content.msc4354_sticky_key}`, event);
  return [...latest.values()].filter(({ content }) => content.member);
}

const isOf = (call) => ({ sender, content }) => sender === call.user.id && content.member.device_id === call.device;

/** Waits until each of these calls has a sticky membership, and nobody else. */
export async function expectStickyMembers(stack, calls, room) {
  const members = await eventually("sticky memberships", PATIENCE_MS, async (seen) => {
    const events = await stickyMemberships(stack.users[0], room);
    seen(events);
    return events.length === calls.length && calls.every((call) => events.some(isOf(call))) ? events : undefined;
  });
  for (const call of calls) {
    const { content } = members.find(isOf(call));
    const facts = {
      slot_id: [content.slot_id, slot],
      "application.type": [content.application?.type, "m.call"],
      "member.user_id": [content.member.user_id, call.user.id],
      "transport": [content.transports?.published?.[0]?.livekit_service_url, stack.serviceURL],
    };
    expectFacts(facts, call, content);
  }
}

/** Waits until the call's sticky membership is withdrawn. */
export async function expectNoStickyMember(stack, call, room) {
  await eventually(`the sticky membership of ${call.name} is gone`, PATIENCE_MS, async (seen) => {
    const events = await stickyMemberships(stack.users[0], room);
    seen(events);
    return events.some(isOf(call)) ? undefined : true;
  });
}

/** The hashed name of the participant that Element Call asked for at its own service last. */
function hashedName(call, stack) {
  const { asked } = call.admissions.findLast(({ service }) => service === stack.serviceURL) ?? {};
  const { id, claimed_user_id: user, claimed_device_id: device } = asked?.member ?? {};
  if (user !== call.user.id || device !== call.device) throw new Error(`${call.name} asked for ${JSON.stringify(asked)}`);
  return hash(user, device, id);
}

/** Waits until exactly these calls are there under their hashed names, as callserver sees it. */
export async function expectHashedParticipants(stack, calls, room) {
  await eventually("hashed participants", PATIENCE_MS, async (seen) => {
    const wanted = calls.map((call) => hashedName(call, stack)).sort();
    const present = (await stack.participants(room)).map(({ identity }) => identity).sort();
    seen({ wanted, present });
    return isDeepStrictEqual(present, wanted) ? true : undefined;
  });
}
