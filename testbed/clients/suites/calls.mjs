// Three people in one room: one PC, two PCs and Firefox mixed, plain and end-to-end encrypted.
import { allSee } from '../peer.mjs';
import { claim, stopwatch, until } from '../wait.mjs';

const ring = { alice: 'one', bob: 'two', carol: 'three' };

async function threeJoin(stage, options) {
  const server = await stage.server();
  const alice = await stage.peer('alice');
  const bob = await stage.peer('bob');
  const carol = await stage.peer('carol', 'firefox');
  await alice.join(server, stage.room, options);
  await bob.join(server, stage.room, { ...options, single: false });
  await carol.join(server, stage.room, options);
  await Promise.all([alice, bob, carol].map((peer) => peer.publish()));
  claim(alice.joined.mode === 'publisher-only', `alice is in mode ${alice.joined.mode}`);
  claim(bob.joined.mode !== 'publisher-only', `bob is in mode ${bob.joined.mode}`);
  return [alice, bob, carol];
}

// keepsFlowing looks for seconds: in every two of them each receiver gets more bytes, frames and sound of each other.
async function keepsFlowing(peers, seconds) {
  const figures = (snapshot) => Object.values(snapshot.remotes).flatMap(({ identity, tracks }) => [
    [`${identity} video bytes`, tracks.camera.bytesReceived], [`${identity} frames`, tracks.camera.framesDecoded],
    [`${identity} audio bytes`, tracks.microphone.bytesReceived], [`${identity} audio energy`, tracks.microphone.totalAudioEnergy]]);
  const look = () => Promise.all(peers.map(async (peer) => figures(await peer.snapshot())));
  let before = await look();
  for (let passed = 0; passed < seconds; passed += 2) {
    const end = Date.now() + 2000;
    await until('two seconds', () => Date.now() >= end, 3);
    const now = await look();
    now.forEach((list, i) => list.forEach(([name, value], j) => claim(value > before[i][j][1], `${peers[i].identity}: ${name} stands still at ${value}`)));
    before = now;
  }
}

// Firefox as the publisher of layers, with two peer connections and with one, muting and loading its page anew.
async function firefox(stage) {
  const server = await stage.server();
  const [alice, carol] = [await stage.peer('alice'), await stage.peer('carol', 'firefox')];
  await alice.join(server, stage.room, { adaptiveStream: true, dynacast: true });
  const gone = [];
  const layered = { width: 640, height: 360, simulcast: true };
  for (const single of [false, true]) {
    await carol.join(server, stage.room, { single, dynacast: true });
    await carol.publish(layered);
    if (!single) await alice.publish();
    await allSee([alice, carol]);
    for (const [width, height, lines] of [[640, 360, 360], [160, 90, 180], [640, 360, 360]]) {
      await alice.call('size', 'carol', 'camera', width, height);
      await until(`alice gets ${lines} lines of carol`, async () => (await alice.snapshot()).remotes.carol.tracks.camera.frameHeight === lines);
      await alice.sees(carol);
    }
    await carol.call('mute', 'camera', true);
    await alice.event('muted', (e) => e.source === 'camera');
    await carol.call('mute', 'camera', false);
    await alice.sees(carol);
    await carol.reload();
    const time = stopwatch();
    await alice.others([], 25);
    gone.push(`${time()} s`);
  }
  return `gone ${gone.join(' and ')} after leaving by a reload`;
}

export const calls = [
  {
    name: 'call', about: 'v1, v0 and Firefox in one room decode each other for 10 s', seconds: 90,
    run: async (stage) => {
      const peers = await threeJoin(stage, {});
      await allSee(peers);
      await keepsFlowing(peers, 10);
      return `joined in ${peers.map((p) => `${p.joined.milliseconds} ms`).join(', ')}`;
    },
  },
  {
    name: 'call e2ee', about: 'the same with end-to-end encryption; a wrong key opens nothing', seconds: 90,
    run: async (stage) => {
      const peers = await threeJoin(stage, { keyring: ring });
      const [alice, bob] = peers;
      await allSee(peers);
      await keepsFlowing(peers, 10);
      for (const peer of peers) {
        const { remotes } = await peer.snapshot();
        for (const person of Object.values(remotes)) claim(person.tracks.camera.encrypted && person.tracks.microphone.encrypted, `${person.identity} is not marked as encrypted`);
        claim((await peer.events('encryption error')).length === 0, `${peer.identity} met an encryption error`);
      }
      await bob.call('key', 'alice', 'not her key');
      await bob.event('encryption error');
      await alice.sees(bob);
      return `joined in ${peers.map((p) => `${p.joined.milliseconds} ms`).join(', ')}`;
    },
  },
  { name: 'firefox', about: 'Firefox publishes layers in both modes, mutes and reloads', seconds: 120, run: firefox },
];
