#!/usr/bin/env node
// The client suites: livekit-client in real browsers against the SFU of this repository.
//
//   node testbed/clients/run.mjs [--only NAME]... [--list] [--reference PATH-TO-LIVEKIT-SERVER] [--keep]
//
// Prints a line a case and "N passed, N failed, N skipped"; exit status 1 when any failed. As root it runs in a network namespace of its own.
import { parseArgs } from 'node:util';
import { npmPackages } from '../process/cache.mjs';
import { enterNamespace } from './namespace.mjs';

const { values: options } = parseArgs({
  options: { only: { type: 'string', multiple: true }, list: { type: 'boolean' }, reference: { type: 'string' }, keep: { type: 'boolean' } },
});

await npmPackages(); // before the namespace, which has no way out
const ownAddress = await enterNamespace();
const { allCases } = await import('./suites/index.mjs');
const { runSuite } = await import('./runner.mjs');
const passed = await runSuite('clients', allCases, options, { reference: options.reference, ownAddress });
process.exit(passed ? 0 : 1);
