// Runs cases one after the other, each within its own time, and prints what happened.
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { outputs, repository } from '../process/cache.mjs';
import { stopwatch, within } from './wait.mjs';
import { World } from './world.mjs';

const wholeRun = 15 * 60; // seconds: twice what two cores need when nothing else runs

// Skip is thrown by a case that cannot run here; its message is the reason and is printed.
export class Skip extends Error {}

// runCases returns whether all passed. A case is {name, about, seconds, run(stage)}; what run returns is printed behind its name.
async function runCases(cases, world) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const total = stopwatch();
  for (const { name, about, seconds = 90, run } of cases) {
    const time = stopwatch();
    const stage = world.stage(name);
    try {
      if (total() > wholeRun) throw new Error(`the whole run is limited to ${wholeRun} s`);
      const note = await within(seconds, name, run(stage));
      counts.passed += 1;
      console.log(`ok    ${name.padEnd(22)} ${time().toFixed(1).padStart(5)} s  ${note ?? about}`);
    } catch (error) {
      if (error instanceof Skip) {
        counts.skipped += 1;
        console.log(`skip  ${name.padEnd(22)} ${time().toFixed(1).padStart(5)} s  ${error.message}`);
      } else {
        counts.failed += 1;
        console.log(`FAIL  ${name.padEnd(22)} ${time().toFixed(1).padStart(5)} s  ${error.message}`);
        console.log(`      ${await stage.evidence(error)}`);
      }
    } finally {
      await stage.close();
    }
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  return counts.failed === 0 && counts.passed > 0;
}

// runSuite runs those of a suite's cases whose name has one of `only` in it, in a World with these settings, and returns whether all passed. With
// list it only prints them; keep leaves the directory of the run behind.
export async function runSuite(suite, all, { only, list, keep }, settings) {
  const cases = all.filter(({ name }) => !only || only.some((part) => name.includes(part)));
  if (list) {
    for (const { name, about } of cases) console.log(`${name.padEnd(24)} ${about}`);
    return true;
  }
  const directory = mkdtempSync(join(tmpdir(), `callserver-${suite}-`));
  const out = join(outputs, suite);
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  const world = new World({ repository, directory, out, ...settings });
  const interrupted = Promise.race(['SIGINT', 'SIGTERM'].map((signal) => once(process, signal).then(() => signal)));
  try {
    const passed = await Promise.race([runCases(cases, world), interrupted]);
    world.interrupted = typeof passed === 'string';
    if (world.interrupted) console.log(`ended by ${passed}`);
    return passed === true;
  } finally {
    await world.close();
    if (keep) console.log(`kept ${directory}`);
    else rmSync(directory, { recursive: true, force: true });
  }
}
