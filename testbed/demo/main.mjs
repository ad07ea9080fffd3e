// The demo: a homeserver, callserver and Element Call on this machine, with one
// link for each user. With CHECK=1 three browsers follow the links, call each
// other and measure; the exit status says whether everything was right.
//
//   make demo                          links to click, until Ctrl-C
//   make demo HOMESERVER=synapse       with Synapse in place of Dendrite
//   make demo CHECK=1                  three Element Call users, checked
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

import { npmPackages, outputs, say } from "../process/cache.mjs";
import { peer } from "../homeservers/homeserver.mjs";
import { stopAll } from "../process/process.mjs";
import { Stack } from "../stack/stack.mjs";

const names = ["alice", "bob", "carol"];

/** Rejects when the person at the terminal, or make, wants the end. */
function interrupted() {
  return new Promise((_, reject) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
      process.once(signal, () => reject(new Interrupted(`stopped by ${signal}`)));
    }
  });
}

class Interrupted extends Error {}

async function demo(kind) {
  const logs = join(outputs, `demo-${kind}`);
  await rm(logs, { recursive: true, force: true });
  const stack = await Stack.start({ kind, logs, names, rooms: { "The demo room": { encrypted: true } } });
  try {
    console.log("\nOpen one link for each user, in one browser or in several:\n");
    for (const user of stack.users) console.log(`  ${user.name.padEnd(8)} ${stack.site.link(user)}`);
    console.log(`\nThe room is end-to-end encrypted. Logs: ${logs}\nCtrl-C stops everything.\n`);
    await stack.callserver.exited;
    throw new Error(`callserver ${stack.callserver.end}; see ${stack.callserver.log}`);
  } finally {
    await stack.stop();
  }
}

async function main() {
  const kind = process.env.HOMESERVER || "dendrite";
  const implementation = await peer(kind);
  await mkdir(outputs, { recursive: true });
  await npmPackages();
  await implementation.prepare();
  if (!checking) return demo(kind);
  const { check } = await import("./check.mjs");
  return check({ kind, names });
}

const checking = Boolean(process.env.CHECK) && process.env.CHECK !== "0";
let status = 0;
try {
  await Promise.race([main(), interrupted()]);
} catch (error) {
  status = error instanceof Interrupted && !checking ? 0 : 1;
  console.error(`\n${error instanceof Interrupted ? "" : "FAILED: "}${error.message}`);
}
await stopAll();
process.exit(status); // a start that was interrupted may still be waiting for something
