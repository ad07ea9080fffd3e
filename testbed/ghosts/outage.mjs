// The outage: a homeserver that is stopped for a while in a running call. Nobody is dropped meanwhile, and the leave of
// who left meanwhile is sent when it is back.
import { sleep } from "./haunt.mjs";

/** How long callserver may take to send what it owes once the homeserver answers again. */
const OWED_MS = 45_000;

/**
 * Stops the homeserver for so long, while the calls hear each other and one of them leaves; returns how long after the
 * homeserver's return that leave was there.
 * @param {object} haunt
 * @param {{stays: object[], leaves: object, ms: number, leaveAfter: number, tell: (text: string) => void}} options
 *   leaveAfter: milliseconds from the stop; alone, nobody hears anything any more
 */
export async function outage(haunt, { stays, leaves, ms, leaveAfter, tell }) {
  const { homeserver } = haunt.stack;
  await homeserver.pause();
  const stopped = Date.now();
  tell("the homeserver is stopped");
  await haunt.showAccessTokens(leaves.room); // what is not answered is told to nobody either
  let present = [...stays, leaves];
  for (let passed = 0; passed < ms; passed = Date.now() - stopped) {
    if (present.length > stays.length && passed >= leaveAfter) {
      await leaves.leave();
      present = stays;
    }
    if (present.length > 1) for (const call of present) await haunt.hears(call);
    await sleep(Math.min(2_000, Math.max(0, stopped + ms - Date.now())));
  }
  tell(`who was there heard the others for ${Math.round((Date.now() - stopped) / 1000)} s without it`);
  await homeserver.resume();
  const back = await haunt.gone([leaves], { since: Date.now(), within: OWED_MS });
  await haunt.notBounced(stays);
  if (stays.length > 1) for (const call of stays) await haunt.hears(call);
  return back;
}
