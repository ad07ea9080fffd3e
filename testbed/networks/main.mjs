#!/usr/bin/env node
// Calls over bad networks, callserver beside livekit-server: make long PART=networks.
//
//   node testbed/networks/main.mjs [--scenario NAME[-up|-down]]... [--server callserver|livekit|both] [--short|--table] [--add] [--series] [--list]
//
// Prints a line a run, then the tables as docs/performance.md has them. Exit status 1 when callserver misses a bar or a run is void: the
// machine was too busy to measure. With --short that is said and not a failure. With --table runs are shorter where no bar names a time: 25 minutes for all.
// With --add the tables show what was measured before, too, in runs as long as these: they can be made piece by piece. With --series everything that was
// noted on the way lies in a file of JSON lines for each run, in testbed/out/networks.
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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
import { missed, scenarios, short, table } from './scenarios.mjs';
import { tables, written } from './table.mjs';

const attempts = 3; // of a run that was void

const yes = { type: 'boolean' };
const { values: options } = parseArgs({
  options: { scenario: { type: 'string', multiple: true, default: [] }, server: { type: 'string', default: 'both' }, short: yes, table: yes, add: yes, series: yes, list: yes },
});

// reference returns a livekit-server, built once from its published module; REFERENCE names another.
const reference = async () => process.env.REFERENCE
  ?? (await finish('go', ['run', './testbed/bench', '-reference'], { cwd: repository, env: { ...process.env, CGO_ENABLED: '0' } })).trim().split('\n').at(-1);

const form = (options.short ? short : options.table ? table : scenarios)
  .flatMap((scenario) => (scenario.directions ?? ['down', 'up']).map((direction) => ({ scenario, direction, name: `${scenario.name}-${direction}` })));

const runs = form
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

// servers are the ones that are compared, in the order of the tables.
const servers = ['callserver', 'livekit'].filter((name) => ['both', name].includes(options.server));

// remember gives the runs of the form the results that lie in file, of those as long as these.
function remember(file) {
  for (const { name, seconds, results } of existsSync(file) ? JSON.parse(readFileSync(file)) : []) {
    const run = form.find((one) => one.name === name && one.scenario.seconds === seconds);
    if (run) run.results = results;
  }
}

// good tells whether a result lets the command succeed. A long run that is void has measured nothing, which is a failure; of the short form
// it only says, in so many words, that this machine was too busy.
const good = (result) => (result.figures ? result.missed.length === 0 : Boolean(options.short && result.void));

// series returns what takes the notes of a run, if they are wanted, and puts them into its file.
function series(out, run, name) {
  if (!options.series) return undefined;
  const file = join(out, `${run.name}-${name}.jsonl`);
  writeFileSync(file, '');
  return (who, samples) => appendFileSync(file, samples.map((sample) => `${JSON.stringify({ who, ...sample })}\n`).join(''));
}

// compare runs everything against the servers in turn and returns whether callserver kept its bars.
async function compare(worlds, closers, out) {
  const link = await openLink(Object.values(worlds)[0], closers);
  const started = {};
  for (const [name, world] of Object.entries(worlds)) started[name] = await world.startServer({ name, address: serverSide });
  let kept = true;
  for (const run of runs) {
    run.results ??= {};
    for (const [name, world] of Object.entries(worlds)) {
      const result = await attempt(run, world, { server: started[name], link, note: series(out, run, name) });
      run.results[name] = result;
      if (name === 'callserver') kept &&= good(result);
      say(`${run.name.padEnd(14)} ${name.padEnd(10)} ${written(result)}`);
    }
  }
  return kept;
}

async function main(ownAddress) {
  if (options.list) {
    for (const { name, scenario } of runs) console.log(`${name.padEnd(14)} ${String(scenario.seconds).padStart(3)} s  ${scenario.about}`);
    return true;
  }
  if (!ownAddress) throw new Error('needs root, for network namespaces and TUN devices; run it as root');
  if (!runs.length) throw new Error(`no scenario ${options.scenario}; --list says which there are`);
  if (!servers.length) throw new Error(`server ${options.server}: want callserver, livekit or both`);
  await npmPackages();
  const directory = mkdtempSync(join(tmpdir(), 'callserver-networks-'));
  const out = join(outputs, 'networks');
  mkdirSync(out, { recursive: true });
  if (options.add) remember(join(out, 'networks.json'));
  const worlds = {};
  if (servers.includes('callserver')) worlds.callserver = new World({ repository, directory, out, ownAddress });
  if (servers.includes('livekit')) worlds.livekit = new World({ repository, directory, out, ownAddress, reference: await reference() });
  const closers = [];
  const interrupted = Promise.race(['SIGINT', 'SIGTERM'].map((signal) => once(process, signal)));
  try {
    const kept = await Promise.race([compare(worlds, closers, out), interrupted]);
    const shown = form.filter(({ results }) => results);
    const text = tables(shown, servers);
    console.log(`\n${text}`);
    writeFileSync(join(out, `${options.short ? 'short' : 'networks'}.md`), text);
    writeFileSync(join(out, 'networks.json'), JSON.stringify(shown.map(({ name, scenario: { seconds }, results }) => ({ name, seconds, results })), null, 2));
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
