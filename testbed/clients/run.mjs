#!/usr/bin/env node
// The client suites: livekit-client in real browsers against the SFU of this repository.
//
//   node testbed/clients/run.mjs [--only NAME]... [--list] [--reference PATH-TO-LIVEKIT-SERVER] [--keep]
//
// Prints a line a case and "N passed, N failed, N skipped"; exit status 1 when any failed. As root it runs in a network namespace of its own.
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { enterNamespace } from './namespace.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const repository = resolve(here, '../..');

const { values: options } = parseArgs({
  options: { only: { type: 'string', multiple: true }, list: { type: 'boolean' }, reference: { type: 'string' }, keep: { type: 'boolean' } },
});

async function main() {
  if (!existsSync(join(here, '../node_modules/livekit-client'))) {
    const install = spawnSync('npm', ['ci', '--prefix', join(repository, 'testbed')], { stdio: 'inherit' });
    if (install.status !== 0) throw new Error('npm ci of testbed failed');
  }
  const { allCases } = await import('./suites/index.mjs');
  const cases = allCases.filter(({ name }) => !options.only || options.only.some((part) => name.includes(part)));
  if (options.list) {
    for (const { name, about } of cases) console.log(`${name.padEnd(24)} ${about}`);
    return true;
  }
  const { World } = await import('./world.mjs');
  const { runCases } = await import('./runner.mjs');
  const directory = mkdtempSync(join(tmpdir(), 'callserver-clients-'));
  const out = join(repository, 'testbed/out/clients');
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  const world = new World({ repository, directory, out, reference: options.reference, ownAddress });
  const interrupted = Promise.race(['SIGINT', 'SIGTERM'].map((signal) => once(process, signal).then(() => signal)));
  try {
    const passed = await Promise.race([runCases(cases, world), interrupted]);
    world.interrupted = typeof passed === 'string';
    if (world.interrupted) console.log(`ended by ${passed}`);
    return passed === true;
  } finally {
    await world.close();
    if (options.keep) console.log(`kept ${directory}`);
    else rmSync(directory, { recursive: true, force: true });
  }
}

const ownAddress = await enterNamespace();
const passed = await main();
process.exit(passed ? 0 : 1);
