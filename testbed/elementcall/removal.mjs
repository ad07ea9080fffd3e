// What must happen when somebody in a call is kicked or banned, or leaves the
// Matrix room, or when the room denies their homeserver: media stops in time,
// what they hold is worthless, and they come back only once they may again.
import assert from "node:assert/strict";

import { eventually } from "../process/eventually.mjs";
import { PATIENCE_MS } from "./call.mjs";
import { hash, slot } from "../stack/names.mjs";

/** Milliseconds from the membership event to the last byte, where the homeserver tells callserver of departures. */
export const TOLD_MS = 2_000;

/** Milliseconds without a byte after which nothing comes any more: a microphone that is silent pauses for less. */
const SILENCE_MS = 1_500;

/** The event that puts somebody out of a room: their own membership. */
const departure = async (witness, gone, room) => {
  const event = (await witness.state(room, "m.room.member")).find(({ state_key }) => state_key === gone.user.id);
  assert.notEqual(event.content.membership, "join");
  return { why: event.content.membership, at: event.origin_server_ts };
};

/** The event that puts out everybody of some homeservers. */
export const denial = async (witness, gone, room) => {
  const [event] = await witness.state(room, "m.room.server_acl");
  return { why: "server ACL", at: event.origin_server_ts };
};

/**
 * Has somebody removed from the room, and waits until this callserver passes on nothing to them or of them any more.
 * @param {object} meeting
 * @param {object} gone the call of who is removed
 * @param {object} stack whose callserver must cut them off
 * @param {() => Promise} act removes them
 * @param {Function} cause finds the event by which it does
 * @returns {Promise<number>} ms from that event to the last byte that arrived
 */
export async function remove(meeting, gone, stack, act, cause = departure) {
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
  const { why, at } = await cause(witness, gone, room);
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
  meeting.tell(`${gone.name} (${why}) is out of the call ${out} ms after the event, the last bytes came ${last} ms after it`);
  return last;
}

const isOf = (identity, { user, device }) => identity === `${user.id}:${device}` || identity === hash(user.id, device, `${user.id}:${device}`);

/** When bytes of these participants arrived last, in ms since 1970; 0 if none did. */
async function lastFrom(call, sids) {
  const arrivals = Object.entries(await call.arrivals());
  return Math.max(0, ...arrivals.filter(([sid]) => sids.has(sid)).map(([, at]) => at));
}

/** Asks a callserver for tokens for a room, as clients of both generations do: one answer {path, status, errcode, error, jwt} each. */
async function ask({ user, device }, stack, room) {
  const asked = {
    "/sfu/get": { room, device_id: device },
    "/get_token": { room_id: room, slot_id: slot, member: { id: `${user.id}:${device}`, claimed_user_id: user.id, claimed_device_id: device } },
  };
  const answers = [];
  for (const [path, body] of Object.entries(asked)) {
    const response = await fetch(`${stack.serviceURL}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ openid_token: await user.openID(), ...body }),
    });
    answers.push({ path, status: response.status, ...(await response.json()) });
  }
  return answers;
}

const good = async (jwt, stack) => (await fetch(`${stack.callserverURL}/livekit/sfu/rtc/validate?access_token=${jwt}`)).status === 200;

/**
 * Whoever may not be in the call gets no new token of this callserver, and those they have for the room are refused.
 * @param {RegExp} reason what the answers say
 */
export async function expectRefused(call, stack, room, reason = /./) {
  const here = call.admissions.filter(({ service, asked }) => service === stack.serviceURL && (asked.room ?? asked.room_id) === room);
  for (const { jwt } of here) assert.equal(await good(jwt, stack), false, `an old token of ${call.name} is worthless`);
  for (const { path, status, errcode, error } of await ask(call, stack, room)) {
    assert.deepEqual([status, errcode], [403, "M_FORBIDDEN"], `${path}: ${error}`);
    assert.match(error, reason, path);
  }
}

/** Whoever may be in the call gets tokens of this callserver, which the SFU takes, once callserver has heard that they may. */
export async function expectAdmitted(call, stack, room) {
  await eventually(`${call.name} is admitted`, PATIENCE_MS, async (seen) => {
    const answers = await ask(call, stack, room);
    seen(answers.map(({ path, status, error }) => ({ path, status, error })));
    const taken = await Promise.all(answers.map(({ status, jwt }) => status === 200 && good(jwt, stack)));
    return taken.every(Boolean) || undefined;
  });
}
