// Legs: livekit-client on one side, on the other a plain peer connection whose media ends at the server.
import { createHash } from 'node:crypto';
import { people } from '../peer.mjs';
import { claim, until } from '../wait.mjs';

const keyring = { alice: 'the key of alice', bob: 'the key of bob', carol: 'the key of carol' };
const keyOf = (identity) => createHash('sha256').update(keyring[identity]).digest('hex');

async function server(stage) {
  return stage.ownServer({ binary: await stage.world.build('leg', './testbed/leg') });
}

// remote is a plain peer connection of that name which has called into the room.
async function remote(stage, node, identity, { encrypted, browser = 'chromium', ...options } = {}) {
  const peer = await stage.peer(identity, browser, `${(await stage.world.pages()).url()}remote.html`);
  await peer.call('call', {
    url: node.http, room: stage.room, identity, ...people[identity], encrypted, ...options,
    ...(encrypted && { own: keyOf(identity), keys: Object.fromEntries(Object.keys(keyring).filter((k) => k !== identity).map((k) => [k, keyOf(k)])) }),
  });
  return peer;
}

async function client(stage, node, identity, encrypted, video = {}) {
  const peer = await stage.peer(identity);
  await peer.join(node, stage.room, { ...(encrypted && { keyring }) });
  await peer.publish(video);
  return peer;
}

const both = (encrypted, options = {}, video = {}) => async (stage) => {
  const node = await server(stage);
  const alice = await client(stage, node, 'alice', encrypted, video);
  const bob = await remote(stage, node, 'bob', { encrypted, ...options });
  await Promise.all([alice.sees(bob), bob.sees(alice)]);
  const { remotes } = await alice.snapshot();
  for (const [source, track] of Object.entries(remotes.bob.tracks)) claim(track.encrypted === Boolean(encrypted), `${source} of the leg is marked ${track.encrypted}`);
  claim((await alice.events('encryption error')).length === 0, 'alice met an encryption error');
  return { node, alice, bob };
};

export const legs = [
  { name: 'leg', about: 'a plain peer connection and livekit-client see and hear each other', run: async (stage) => void await both(false)(stage) },
  { name: 'leg e2ee', about: 'the same, encrypted end to end for the client', run: async (stage) => void await both(true)(stage) },
  {
    name: 'leg e2ee simulcast', about: 'encrypted simulcast towards a peer without RTX', run: async (stage) => {
      const { bob } = await both(true, { rtx: false }, { width: 1280, height: 720, simulcast: true, detail: true, videoEncoding: { maxBitrate: 1_500_000, maxFramerate: 15 } })(stage);
      const { remotes } = await bob.snapshot();
      return `received ${remotes.alice.tracks.camera.frameWidth} pixels wide`;
    },
  },
  { name: 'leg e2ee h264', about: 'encrypted H.264', run: async (stage) => void await both(true, { codec: 'video/H264' }, { videoCodec: 'h264' })(stage) },
  {
    name: 'leg restart and mute', about: 'an ICE restart, a camera that goes and comes', seconds: 120, run: async (stage) => {
      const { alice, bob } = await both(true)(stage);
      await bob.call('restart');
      await Promise.all([alice.sees(bob), bob.sees(alice)]);
      await bob.call('enable', 'camera', false);
      await until('the camera is muted', async () => (await alice.snapshot()).remotes.bob.tracks.camera.muted);
      await bob.call('enable', 'camera', true);
      await Promise.all([alice.sees(bob), bob.sees(alice)]);
    },
  },
  {
    name: 'leg speakers', about: 'the remote of a leg follows who speaks', seconds: 120, run: async (stage) => {
      const { node, alice, bob } = await both(true)(stage);
      const carol = await client(stage, node, 'carol', true);
      await carol.call('loudness', 0);
      for (const [louder, quieter] of [[carol, alice], [alice, carol]]) {
        await quieter.call('loudness', 0);
        await louder.call('loudness', 0.5);
        await bob.sees(louder, { seconds: 30 });
      }
      await Promise.all([alice.sees(bob), carol.sees(bob)]);
    },
  },
  {
    name: 'leg firefox', about: 'Firefox as the remote of a leg', seconds: 120, run: async (stage) => void await both(true, { browser: 'firefox' })(stage),
  },
];
