// What must happen when somebody in a call is kicked or banned, or leaves the
// Matrix room: media stops in time, what they hold is worthless, and they come
// back only after they joined the room anew.
import assert from "node:assert/strict";

import { eventually } from "../process/eventually.mjs";
import { PATIENCE_MS } from "./call.mjs";
import { hash, slot } from "../stack/names.mjs";

/** Milliseconds from the membership event to the last byte, where the homeserver tells callserver of departures. */
export const TOLD_MS = 2_000;

/** Milliseconds without a byte after which nothing comes any more: a microphone that is silent pauses for less. */
const SILENCE_MS = 1_500;

/**
 * Has somebody removed from the room, and waits until this callserver passes on nothing to them or of them any more.
 * @param {object} meeting
 * @param {object} gone the call of who is removed
 * @param {object} stack whose callserver must cut them off
 * @param {() => Promise} act removes them
 * @returns {Promise<number>} ms from the membership event to the last byte that arrived
 */
export async function remove(meeting, gone, stack, act) {
  const { room, calls } = meeting;
  const [witness] = stack.users;
  const present = await stack.participants(room);
  const sids = (own) => new Set(present.filter(({ identity }) => isOf(identity, gone) === own).map(({ sid }) => sid));
  const of = { them: sids(true), others: sids(false) };
  /** When a byte passed this callserver last, to whom is removed or of them. */
  const lastByte = async () => {
    const lasts = calls.map((call) => lastFrom(call, call === gone ? of.others : of.them));
    return Math.max(...(await Promise.all(lasts)));
  };
  await Promise.all(calls.map((call) => call.arrivals()));
  await eventually(`${gone.name} receives something`, PATIENCE_MS, async () => (await lastFrom(gone, of.others)) > 0 || undefined);
  await act();
  const { content, origin_server_ts: at } = (await witness.state(room, "m.room.member")).find(({ state_key }) => state_key === gone.user.id);
  assert.notEqual(content.membership, "join");
  await eventually(`${gone.name} is not in the call of ${stack.homeserver.name}`, PATIENCE_MS, async (seen) => {
    const now = await stack.participants(room);
    seen(now.map(({ identity }) => identity));
    return now.some(({ identity }) => isOf(identity, gone)) ? undefined : true;
  });
  const out = Date.now() - at;
  const last = await eventually(`nothing arrives at ${gone.name}, and nothing of them`, PATIENCE_MS, async (seen) => {
    const last = await lastByte();
    seen({ last, now: Date.now() });
    return Date.now() - last > SILENCE_MS ? last - at : undefined;
  });
  meeting.tell(`${gone.name} (${content.membership}) is out of the call ${out} ms after the event, the last bytes came ${last} ms after it`);
  return last;
}

const isOf = (identity, { user, device }) => identity === `${user.id}:${device}` || identity === hash(user.id, device, `${user.id}:${device}`);

/** When bytes of these participants arrived last, in ms since 1970; 0 if none did. */
async function lastFrom(call, sids) {
  const arrivals = Object.entries(await call.arrivals());
  return Math.max(0, ...arrivals.filter(([sid]) => sids.has(sid)).map(([, at]) => at));
}

/** Whoever is not in the room gets no new token of this callserver, and those they have for the room are refused. */
export async function expectRefused(call, stack, room) {
  const here = call.admissions.filter(({ service, asked }) => service === stack.serviceURL && (asked.room ?? asked.room_id) === room);
  for (const { jwt } of here) {
    const response = await fetch(`${stack.callserverURL}/livekit/sfu/rtc/validate?access_token=${jwt}`);
    assert.notEqual(response.status, 200, `an old token of ${call.name} is worthless`);
  }
  const { user, device } = call;
  for (const [path, body] of [
    ["/sfu/get", { room, device_id: device }],
    ["/get_token", { room_id: room, slot_id: slot, member: { id: `${user.id}:${device}`, claimed_user_id: user.id, claimed_device_id: device } }],
  ]) {
    const response = await fetch(`${stack.serviceURL}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ openid_token: await user.openID(), ...body }),
    });
    const answer = await response.json();
    assert.deepEqual([response.status, answer.errcode], [403, "M_FORBIDDEN"], `${path}: ${JSON.stringify(answer)}`);
  }
}
