// Clients that are no browser.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { people } from '../peer.mjs';
import { Skip } from '../runner.mjs';
import { claim, until } from '../wait.mjs';

const program = fileURLToPath(new URL('../nodepeer.mjs', import.meta.url));

// startNodePeer returns the process and what it has reported so far.
async function startNodePeer(stage, server, identity) {
  await import('@livekit/rtc-node').catch((error) => { throw new Skip(`@livekit/rtc-node cannot be loaded: ${error.message}`); });
  const child = fork(program, [server.url, server.token(identity, stage.room), String(people[identity].frequency)], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  const peer = { identity, person: people[identity], messages: [], output: '', send: (text) => child.send({ text }) };
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { peer.output = (peer.output + data).slice(-4000); });
  child.on('message', (message) => peer.messages.push(message));
  const exited = once(child, 'exit');
  stage.after(async () => {
    if (child.connected) child.disconnect();
    const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
    await exited;
    clearTimeout(timer);
  });
  peer.message = (what, matches, seconds = 20) => until(`${identity} ${what}`, () => {
    claim(child.exitCode === null, () => `rtc-node ended:\n${peer.output}`);
    return peer.messages.find(matches);
  }, seconds);
  await peer.message('publishes', (m) => m.type === 'published');
  return peer;
}

async function rtcNode(stage) {
  const server = await stage.server();
  const alice = await stage.peer('alice');
  const bob = await stage.peer('bob');
  await alice.join(server, stage.room);
  await bob.join(server, stage.room, { single: false });
  await alice.publish();
  const dave = await startNodePeer(stage, server, 'dave');
  await Promise.all([alice, bob].map((peer) => peer.sees(dave, { video: false })));
  const { frames } = await dave.message('hears alice', (m) => m.type === 'heard' && m.identity === 'alice' && m.frames > 150 && Math.abs(m.frequency - alice.person.frequency) < 30);
  await alice.call('send', 'hello node', { reliable: true });
  await dave.message('gets data', (m) => m.type === 'data' && m.text === 'hello node' && m.identity === 'alice');
  dave.send('hello browser');
  for (const peer of [alice, bob]) await peer.event('data', (e) => e.text === 'hello browser' && e.identity === 'dave');
  return `${frames} audio frames of the right pitch, heard in both browsers, data both ways`;
}

export const native = [
  { name: 'rtc-node', about: 'the Rust core by its Node SDK: audio and data both ways', seconds: 60, run: rtcNode },
];
