#!/usr/bin/env node
// The client suites: livekit-client in real browsers against the SFU of this repository.
//
//   node testbed/clients/run.mjs [--only NAME]... [--list] [--reference PATH-TO-LIVEKIT-SERVER] [--keep]
//
// Prints a line a case and "N passed, N failed, N skipped"; exit status 1 when any failed. As root it runs in a network namespace of its own.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = dirname(fileURLToPath(import.meta.url));
const repository = resolve(here, '../..');
const ownAddress = '10.77.1.1';
const inside = 'CALLSERVER_TESTBED_NAMESPACE';

const { values: options } = parseArgs({
  options: { only: { type: 'string', multiple: true }, list: { type: 'boolean' }, reference: { type: 'string' }, keep: { type: 'boolean' } },
});

// The network of that namespace: loopback, and one more interface with an address and the default route. Without the address neither
// the Rust core of rtc-node nor Firefox gathers candidates, without the route Firefox does not.
const network = `ip link set lo up && ip link add peers type veth peer name elsewhere && ip address add ${ownAddress}/24 dev peers \
  && ip link set peers up && ip link set elsewhere up && ip route add default dev peers`;

// enterNamespace runs this program again in a network of its own: free ports and no stray traffic. Where it is not root, or may not, it
// stays here, and the cases that need more than loopback say so.
async function enterNamespace() {
  if (process.env[inside] || process.getuid() !== 0) return;
  if (spawnSync('unshare', ['--net', 'sh', '-c', network]).status !== 0) return;
  const again = spawn('unshare', ['--net', 'sh', '-c', `${network} && exec "$0" "$@"`, process.execPath, ...process.argv.slice(1)],
    { stdio: 'inherit', env: { ...process.env, [inside]: ownAddress } });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => again.kill(signal)); // it cleans up, then both end
  const [code] = await once(again, 'exit');
  process.exit(code ?? 1);
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
  const world = new World({ repository, directory, out, reference: options.reference, ownAddress: process.env[inside] });
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

await enterNamespace();
const passed = await main();
process.exit(passed ? 0 : 1);
