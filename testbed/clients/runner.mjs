// Runs cases one after the other, each within its own time, and prints what happened.
import { stopwatch, within } from './wait.mjs';

const wholeRun = 15 * 60; // seconds: twice what two cores need when nothing else runs

// Skip is thrown by a case that cannot run here; its message is the reason and is printed.
export class Skip extends Error {}

// runCases returns whether all passed. A case is {name, about, seconds, run(stage)}; what run returns is printed behind its name.
export async function runCases(cases, world) {
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
