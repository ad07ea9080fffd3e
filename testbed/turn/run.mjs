#!/usr/bin/env node
// The relay, used by others' clients: coturn's own, and livekit-client in Chromium that may go no other way. Needs root, for a network of its own.
//
//   node testbed/turn/run.mjs [--only NAME]... [--list] [--keep]
//
// Prints a line a case and "N passed, N failed, N skipped"; exit status 1 when any failed. LONG=1 has a hundred clients in place of ten.
import { parseArgs } from 'node:util';
import { npmPackages } from '../process/cache.mjs';
import { enterNamespace } from '../process/namespaces.mjs';

const { values: options } = parseArgs({
  options: { only: { type: 'string', multiple: true }, list: { type: 'boolean' }, keep: { type: 'boolean' } },
});

await npmPackages();
const { cases } = await import('./cases.mjs');
if (!options.list) await enterNamespace();
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'; // the certificate of these tests vouches for itself
const { runSuite } = await import('../clients/runner.mjs');
const passed = await runSuite('turn', cases, options, { ownAddress: '::', chromium: { parameters: ['--ignore-certificate-errors'] } });
process.exit(passed ? 0 : 1);
