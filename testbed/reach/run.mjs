#!/usr/bin/env node
// livekit-client in Chromium through every kind of network: media must flow. Needs root, for network namespaces.
//
//   node testbed/reach/run.mjs [--only NAME]... [--list] [--keep]
//
// Prints a line a case and "N passed, N failed, N skipped"; exit status 1 when any failed.
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { npmPackages } from '../process/cache.mjs';
import { enterNamespace, Namespace } from '../process/namespaces.mjs';

const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const { values: options } = parseArgs({
  options: { only: { type: 'string', multiple: true }, list: { type: 'boolean' }, keep: { type: 'boolean' } },
});

async function main() {
  const { cases: all } = await import('./cases.mjs');
  const cases = all.filter(({ name }) => !options.only || options.only.some((part) => name.includes(part)));
  if (options.list) {
    for (const { name, about } of cases) console.log(`${name.padEnd(22)} ${about}`);
    return true;
  }
  const { World } = await import('../clients/world.mjs');
  const { runCases } = await import('../clients/runner.mjs');
  const { server4, server6 } = await import('./networks.mjs');
  // The server's addresses are there before any network is, and bob, beside the server, uses them too.
  await new Namespace().ip(`address add ${server4}/32 dev lo\naddress add ${server6}/128 dev lo nodad`);
  const directory = mkdtempSync(join(tmpdir(), 'callserver-reach-'));
  const out = join(repository, 'testbed/out/reach');
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  const world = new World({ repository, directory, out, ownAddress: '::', chromium: { parameters: ['--ignore-certificate-errors'] } });
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'; // the certificate of these tests vouches for itself
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

await npmPackages();
if (!options.list) await enterNamespace();
const passed = await main();
process.exit(passed ? 0 : 1);
