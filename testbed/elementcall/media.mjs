// What each user of a call must receive: sound and pictures of every other one,
// decoded, for ten seconds, counted by the browser and looked at on the page.
import { eventually } from "../process/eventually.mjs";
import { PATIENCE_MS } from "./call.mjs";

const STEP_MS = 2_000;

/** The tiles of the others, each with its decoded sound and picture streams. */
async function receptions(call, calls) {
  const [tiles, streams] = [await call.tiles(), await call.inbound()];
  return calls
    .filter((other) => other !== call)
    .map(({ name }) => {
      const tile = tiles.find((tile) => tile.name === name && tile.track);
      const of = (kind) => streams.find((stream) => stream.kind === kind && stream.owner === tile?.owner && owned(stream, tile));
      return { name, tile, audio: tile && of("audio"), video: tile && of("video") };
    });
}

const owned = (stream, tile) => stream.kind === "audio" || stream.track === tile.track;

/**
 * Waits until all media flow, then checks that they keep flowing for some seconds without a break.
 * A machine too busy to run three browsers breaks a stream as well, so there is a second and a third try, and each break is told.
 * @param {object[]} calls
 * @param {(text: string) => void} tell
 * @param {number} seconds
 */
export async function expectMedia(calls, tell, seconds = 10) {
  for (let tries = 3; ; tries--) {
    await Promise.all(calls.map((call) => flowing(call, calls)));
    try {
      return await watch(calls, seconds);
    } catch (error) {
      if (tries === 1) throw error;
      tell(`a break: ${error.message}`);
    }
  }
}

async function watch(calls, seconds) {
  const look = () => Promise.all(calls.map((call) => receptions(call, calls)));
  const first = await look();
  let before = first;
  for (let passed = 0; passed < seconds * 1000; passed += STEP_MS) {
    await new Promise((resolve) => setTimeout(resolve, STEP_MS));
    const after = await look();
    for (const [index, call] of calls.entries()) expectRise(call, before[index], after[index]);
    before = after;
  }
  for (const [index, call] of calls.entries()) {
    expectRise(call, first[index], before[index], ["energy"]);
    expectPictures(call, first[index], before[index]);
  }
}

/** Waits until the page receives sound and pictures of all the others. */
export function flowing(call, calls) {
  return eventually(`${call.name} receives sound and pictures of both others`, PATIENCE_MS, async (seen) => {
    const all = await receptions(call, calls);
    seen(all);
    const complete = ({ tile, audio, video }) =>
      tile?.picture && lit(tile.picture) && video?.frames > 0 && audio?.bytes > 0 && audio.energy > 0;
    return all.every(complete) ? true : undefined;
  });
}

function expectRise(call, before, after, soundCounters = ["bytes", "samples"]) {
  for (const [index, { name, audio, video }] of before.entries()) {
    const now = after[index];
    for (const [kind, was, is, counters] of [
      ["audio", audio, now.audio, soundCounters],
      ["video", video, now.video, ["bytes", "frames"]],
    ]) {
      for (const counter of counters) {
        if (!(is?.[counter] > was?.[counter])) {
          throw new Error(
            `${call.name}: ${counter} of ${name}'s ${kind} went from ${was?.[counter]} to ${is?.[counter]}: ${JSON.stringify(is)}`,
          );
        }
      }
    }
  }
}

/** A black or a single-coloured picture is what a failed decryption or decoder shows. */
const lit = ({ mean, deviation }) => mean > 10 && deviation > 3;

function expectPictures(call, before, after) {
  for (const [index, { name, tile }] of after.entries()) {
    if (!tile.picture || !lit(tile.picture)) {
      throw new Error(`${call.name}: the picture of ${name} is black: ${JSON.stringify(tile)}`);
    }
    if (tile.picture.print === before[index].tile.picture.print) {
      throw new Error(`${call.name}: the picture of ${name} stands still: ${JSON.stringify(tile)}`);
    }
  }
}

/** Waits until the sharer's screen is shown and decoded here, or is gone again. */
export function expectScreenShare(call, name, present) {
  return eventually(`${call.name} ${present ? "sees" : "no longer sees"} the screen of ${name}`, PATIENCE_MS, async (seen) => {
    const tiles = (await call.tiles()).filter((tile) => tile.name === name || tile.track);
    const sharer = tiles.find((tile) => tile.name === name)?.owner;
    const streams = await call.inbound();
    const shown = tiles.filter((tile) => tile.owner === sharer && sharer);
    seen({ shown, streams: streams.filter((stream) => stream.owner === sharer) });
    if (!present) return shown.length === 1 ? true : undefined;
    const decoded = shown.filter(
      ({ track, picture }) => picture && lit(picture) && streams.some((s) => s.track === track && s.frames > 0),
    );
    return decoded.length === 2 ? true : undefined;
  });
}
