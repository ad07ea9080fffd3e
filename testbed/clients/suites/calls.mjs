// Three people in one room: one PC, two PCs and Firefox mixed, plain and end-to-end encrypted.
import { allSee } from '../peer.mjs';
import { claim, until } from '../wait.mjs';

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
];
