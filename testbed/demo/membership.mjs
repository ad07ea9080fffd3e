// What the homeserver must hold about a call: the membership events of
// MSC4143 in the form that Element Call sends in its compatibility mode.
import { isDeepStrictEqual } from "node:util";

import { eventually, PATIENCE_MS } from "../elementcall/call.mjs";

const type = "org.matrix.msc3401.call.member";

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
