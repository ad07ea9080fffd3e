// Waiting without guessing how long: ask until it is so, and say what was seen last when it never was.
import { setTimeout as pause } from 'node:timers/promises';

// until calls look until it returns a truthy value (returned) or seconds have passed; what it threw last becomes part of the message.
export async function until(what, look, seconds = 15, every = 200) {
  const end = Date.now() + seconds * 1000;
  let last;
  for (;;) {
    try {
      const found = await look();
      if (found) return found;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= end) throw new Error(`${what}: not within ${seconds} s${last ? `: ${last.message}` : ''}`, { cause: last });
    await pause(every);
  }
}

// within gives work so many seconds to finish and rejects after them; the work itself is not undone.
export async function within(seconds, what, work) {
  const patience = new AbortController();
  const late = pause(seconds * 1000, null, { signal: patience.signal }).then(() => { throw new Error(`${what}: not finished within ${seconds} s`); });
  late.catch(() => {});
  try {
    return await Promise.race([work, late]);
  } finally {
    patience.abort();
  }
}

// claim throws when a condition does not hold; inside until it means "not yet".
export function claim(condition, text) {
  if (!condition) throw new Error(typeof text === 'function' ? text() : text);
}

// stopwatch returns a function that says the seconds since, to one decimal.
export function stopwatch() {
  const start = performance.now();
  return () => Math.round((performance.now() - start) / 100) / 10;
}
