#!/usr/bin/env node
// Calls over bad networks, callserver beside livekit-server: make long PART=networks.
//
//   node testbed/networks/main.mjs [--scenario NAME[-up|-down]]... [--server callserver|livekit|both] [--short] [--list]
//
// Prints a line a run, then the tables as docs/performance.md has them. Exit status 1 when callserver misses a bar or a run is void: the
// machine was too busy to measure. With --short that is said and not a failure.
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { enterNamespace } from '../clients/namespace.mjs';
import { finish } from '../clients/process.mjs';
import { within } from '../clients/wait.mjs';
import { World } from '../clients/world.mjs';
import { npmPackages, outputs, repository, say } from '../process/cache.mjs';
import { measure, openLink, Void } from './call.mjs';
import { serverSide } from '../clients/faults.mjs';
import { missed, scenarios, short } from './scenarios.mjs';
import { tables, written } from './table.mjs';

const attempts = 3; // of a run that was void

const { values: options } = parseArgs({
  options: { scenario: { type: 'string', multiple: true, default: [] }, server: { type: 'string', default: 'both' }, short: { type: 'boolean' }, list: { type: 'boolean' } },
});

// reference returns a livekit-server, built once from its published module; REFERENCE names another.
const reference = async () => process.env.REFERENCE
  ?? (await finish('go', ['run', './testbed/bench', '-reference'], { cwd: repository, env: { ...process.env, CGO_ENABLED: '0' } })).trim().split('\n').at(-1);

const runs = (options.short ? short : scenarios)
  .flatMap((scenario) => (scenario.directions ?? ['down', 'up']).map((direction) => ({ scenario, direction, name: `${scenario.name}-${direction}` })))
  .filter(({ scenario, name }) => !options.scenario.length || options.scenario.some((wanted) => [name, scenario.name].includes(wanted)));

// attempt measures until the machine was quiet enough. In the short form a run that misses a bar is repeated too: a machine that is busy
// with other things spoils one, a fault spoils all.
async function attempt(run, world, parts) {
  for (let left = attempts - 1; ; left -= 1) {
    const result = await measured(run, world, parts);
    result.missed = result.figures ? missed(run.scenario.bars, result.figures) : [];
    const again = result.void || (options.short && result.missed.length > 0);
    if (!again || left === 0) return result;
    say(`${run.name} once more: ${written(result)}`);
  }
}

async function measured(run, world, parts) {
  try {
    return { figures: await within(180 + run.scenario.seconds, run.name, measure(run.scenario, run.direction, { world, ...parts })) };
  } catch (error) {
    return { failure: `${error instanceof Void ? 'void: ' : ''}${error.message}`, void: error instanceof Void };
  }
}

// good tells whether a result lets the command succeed. A long run that is void has measured nothing, which is a failure; of the short form
// it only says, in so many words, that this machine was too busy.
const good = (result) => (result.figures ? result.missed.length === 0 : Boolean(options.short && result.void));

// compare runs everything against the servers in turn and returns whether callserver kept its bars.
async function compare(worlds, closers) {
  const link = await openLink(Object.values(worlds)[0], closers);
  const servers = {};
  for (const [name, world] of Object.entries(worlds)) servers[name] = await world.startServer({ name, address: serverSide });
  let kept = true;
  for (const run of runs) {
    run.results = {};
    for (const [name, world] of Object.entries(worlds)) {
      const result = await attempt(run, world, { server: servers[name], link });
      run.results[name] = result;
      if (name === 'callserver') kept &&= good(result);
      say(`${run.name.padEnd(14)} ${name.padEnd(10)} ${written(result)}`);
    }
  }
  return kept;
}

async function main(ownAddress) {
  if (options.list) {
    for (const { name, scenario } of runs) console.log(`${name.padEnd(14)} ${scenario.about}`);
    return true;
  }
  if (!ownAddress) throw new Error('needs root, for network namespaces and TUN devices; run it as root');
  if (!runs.length) throw new Error(`no scenario ${options.scenario}; --list says which there are`);
  if (!['callserver', 'livekit', 'both'].includes(options.server)) throw new Error(`server ${options.server}: want callserver, livekit or both`);
  await npmPackages();
  const directory = mkdtempSync(join(tmpdir(), 'callserver-networks-'));
  const out = join(outputs, 'networks');
  mkdirSync(out, { recursive: true });
  const worlds = {};
  if (options.server !== 'livekit') worlds.callserver = new World({ repository, directory, out, ownAddress });
  if (options.server !== 'callserver') worlds.livekit = new World({ repository, directory, out, ownAddress, reference: await reference() });
  const closers = [];
  const interrupted = Promise.race(['SIGINT', 'SIGTERM'].map((signal) => once(process, signal)));
  try {
    const kept = await Promise.race([compare(worlds, closers), interrupted]);
    const text = tables(runs.filter(({ results }) => results), Object.keys(worlds));
    console.log(`\n${text}`);
    writeFileSync(join(out, `${options.short ? 'short' : 'networks'}.md`), text);
    writeFileSync(join(out, 'networks.json'), JSON.stringify(runs.map(({ name, results }) => ({ name, results })), null, 2));
    return kept === true;
  } finally {
    for (const close of closers) await close();
    for (const world of Object.values(worlds)) {
      world.interrupted = true; // whatever is on its way comes to an end
      await world.close();
    }
    rmSync(directory, { recursive: true, force: true });
  }
}

process.exit(await main(await enterNamespace()) ? 0 : 1);
