#!/usr/bin/env node
// livekit-client in Chromium through every kind of network: media must flow. Needs root, for network namespaces.
//
//   node testbed/reach/run.mjs [--only NAME]... [--list] [--keep]
//
// Prints a line a case and "N passed, N failed, N skipped"; exit status 1 when any failed.
import { parseArgs } from 'node:util';
import { npmPackages } from '../process/cache.mjs';
import { enterNamespace, Namespace } from '../process/namespaces.mjs';

const { values: options } = parseArgs({
  options: { only: { type: 'string', multiple: true }, list: { type: 'boolean' }, keep: { type: 'boolean' } },
});

await npmPackages();
if (!options.list) {
  await enterNamespace();
  const { server4, server6 } = await import('./networks.mjs');
  // The server's addresses are there before any network is, and bob, beside the server, uses them too.
  await new Namespace().ip(`address add ${server4}/32 dev lo\naddress add ${server6}/128 dev lo nodad`);
}
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'; // the certificate of these tests vouches for itself
const { cases } = await import('./cases.mjs');
const { runSuite } = await import('../clients/runner.mjs');
const passed = await runSuite('reach', cases, options, { ownAddress: '::', chromium: { parameters: ['--ignore-certificate-errors'] } });
process.exit(passed ? 0 : 1);
