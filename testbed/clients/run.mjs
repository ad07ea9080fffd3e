#!/usr/bin/env node
// The client suites: livekit-client in real browsers against the SFU of this repository.
//
//   node testbed/clients/run.mjs [--only NAME]... [--list] [--reference PATH-TO-LIVEKIT-SERVER] [--keep]
//
// Prints a line a case and "N passed, N failed, N skipped"; exit status 1 when any failed. As root it runs in a network namespace of its own.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = dirname(fileURLToPath(import.meta.url));
const repository = resolve(here, '../..');
const secondAddress = '10.77.1.1';
const inside = 'CALLSERVER_TESTBED_NAMESPACE';

const { values: options } = parseArgs({
  options: { only: { type: 'string', multiple: true }, list: { type: 'boolean' }, reference: { type: 'string' }, keep: { type: 'boolean' } },
});

// enterNamespace runs this program again in a network of its own: free ports, no stray traffic, and on its loopback interface the
// second address and the default route without which Firefox gathers no candidates. Not root, or no right to: stays here, and the cases that need it say so.
function enterNamespace() {
  if (process.env[inside] || process.getuid() !== 0) return;
  if (spawnSync('unshare', ['--net', 'true']).status !== 0) return;
  const setUp = `ip link set lo up && ip address add ${secondAddress}/32 dev lo && ip route add default dev lo && exec "$0" "$@"`;
  const again = spawnSync('unshare', ['--net', 'sh', '-c', setUp, process.execPath, ...process.argv.slice(1)], { stdio: 'inherit', env: { ...process.env, [inside]: secondAddress } });
  process.exit(again.status ?? 1);
}

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
  const world = new World({ repository, directory, out, reference: options.reference, secondAddress: process.env[inside] });
  try {
    return await runCases(cases, world);
  } finally {
    await world.close();
    if (options.keep) console.log(`kept ${directory}`);
    else rmSync(directory, { recursive: true, force: true });
  }
}

enterNamespace();
const passed = await main();
process.exit(passed ? 0 : 1);
