// Waiting for what takes an unknown time, without guessing it.

/** Waits until `look` returns something other than undefined; says what was waited for, and what was last seen, when it does not. */
export async function eventually(what, timeoutMs, look) {
  const deadline = Date.now() + timeoutMs;
  let last = "nothing";
  while (true) {
    try {
      const found = await look((seen) => (last = seen));
      if (found !== undefined) return found;
    } catch (error) {
      last = error.message.split("\n")[0];
    }
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMs / 1000} s; last seen: ${JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
