// What a call is made of besides flowing: layers, muting, unpublishing, speakers, quality, codecs, the screen.
import { allSee } from '../peer.mjs';
import { claim, stopwatch, until } from '../wait.mjs';

// big is a camera large enough for three simulcast layers, and still cheap to encode in software.
const big = { width: 960, height: 540, fps: 15, simulcast: true, videoEncoding: { maxBitrate: 900_000, maxFramerate: 15 } };

const ring = { alice: 'one', bob: 'two' };

async function pair(stage, options = {}) {
  const server = await stage.server();
  const alice = await stage.peer('alice');
  const bob = await stage.peer('bob');
  await alice.join(server, stage.room, options);
  await bob.join(server, stage.room, { single: false, ...options });
  return [alice, bob];
}

// track is what peer knows of a track of other.
const track = async (peer, other, source = 'camera') => (await peer.snapshot()).remotes[other.identity]?.tracks[source];

const encodings = async (peer, source = 'camera') => (await peer.snapshot()).locals[source]?.encodings ?? [];

// height waits until the decoded picture of other is that many lines high.
const height = (peer, other, lines, seconds = 15) => until(`${peer.identity} gets ${lines} lines`, async () => {
  const now = await track(peer, other);
  claim(now?.frameHeight === lines, `gets ${now?.frameHeight}`);
  return true;
}, seconds);

// stands waits until the decoder of other's track has been given nothing for a second.
const stands = (peer, other, source = 'camera') => {
  const field = source === 'microphone' ? 'packetsReceived' : 'framesDecoded';
  let seen = {};
  return until(`${other.identity}'s ${source} stops at ${peer.identity}`, async () => {
    const value = (await track(peer, other, source))?.[field];
    if (value !== seen.value) seen = { value, since: Date.now() };
    return Date.now() - seen.since > 1000;
  });
};

// sending waits until exactly these rids are active at the publisher, by what the encoders do.
const sending = (peer, rids, seconds = 15) => {
  let before = new Map();
  return until(`${peer.identity} sends ${rids}`, async () => {
    const now = await encodings(peer);
    const rising = now.filter((e) => before.has(e.rid) && e.framesEncoded > before.get(e.rid)).map((e) => e.rid).sort().join();
    before = new Map(now.map((e) => [e.rid, e.framesEncoded]));
    claim(rising === [...rids].sort().join(), `sends [${rising}]`);
    return true;
  }, seconds, 1000);
};

async function layers(stage) {
  const [alice, bob] = await pair(stage, { adaptiveStream: true });
  await alice.publish(big);
  await bob.event('subscribed', (e) => e.source === 'camera', 15);
  const times = [];
  for (const [width, pixels, lines] of [[160, 90, 180], [960, 540, 540], [560, 315, 360], [960, 540, 540]]) {
    const time = stopwatch();
    await bob.call('size', 'alice', 'camera', width, pixels);
    await height(bob, alice, lines);
    await bob.sees(alice, { frames: 10 });
    times.push(`${lines} lines in ${time()} s`);
  }
  await bob.call('visible', 'alice', 'camera', false);
  await stands(bob, alice);
  await bob.call('visible', 'alice', 'camera', true);
  await bob.sees(alice, { frames: 10 });
  return times.join(', ');
}

async function dynacast(stage) {
  const [alice, bob] = await pair(stage, { dynacast: true, adaptiveStream: true });
  await alice.publish(big);
  await bob.event('subscribed', (e) => e.source === 'camera', 15);
  await bob.call('size', 'alice', 'camera', 960, 540);
  await height(bob, alice, 540);
  const time = stopwatch();
  await bob.call('size', 'alice', 'camera', 160, 90);
  await sending(alice, ['q'], 20);
  const down = time();
  await bob.call('visible', 'alice', 'camera', false);
  await sending(alice, [], 20);
  const up = stopwatch();
  await bob.call('visible', 'alice', 'camera', true);
  await bob.call('size', 'alice', 'camera', 960, 540);
  await height(bob, alice, 540);
  await bob.sees(alice);
  return `upper layers off after ${down} s, on again within ${up()} s`;
}

// The fake device, as an application would: switching a camera off stops the device, on opens it again.
async function mute(stage) {
  const [alice, bob] = await pair(stage);
  await alice.call('film', { width: 640, height: 360, fps: 15 });
  await alice.call('speak');
  const real = { color: false, tone: false };
  await bob.sees(alice, real);
  for (const source of ['camera', 'microphone']) {
    await alice.call('enable', source, false);
    await bob.event('muted', (e) => e.source === source);
    await stands(bob, alice, source);
    claim((await track(bob, alice, source)).muted, `${source} not marked as muted`);
    await alice.call('enable', source, true);
    await bob.event('unmuted', (e) => e.source === source);
    await bob.sees(alice, real);
  }
}

// Tracks that the application keeps (no device behind them) take the other way: the sender stays, only its flag changes.
async function muteKept(stage) {
  const [alice, bob] = await pair(stage);
  await alice.publish();
  await bob.publish();
  await allSee([alice, bob]);
  for (const [one, other] of [[alice, bob], [bob, alice]]) {
    await one.call('mute', 'microphone', true);
    await one.call('mute', 'camera', true);
    await until('both muted', async () => (await track(other, one, 'camera')).muted && (await track(other, one, 'microphone')).muted);
    await one.call('mute', 'microphone', false);
    await one.call('mute', 'camera', false);
    await other.sees(one);
  }
}

async function unpublish(stage) {
  const [alice, bob] = await pair(stage);
  await alice.publish();
  const { remotes } = await bob.sees(alice);
  for (let again = 0; again < 2; again += 1) {
    const old = (await track(bob, alice)).sid;
    await alice.call('unpublish', 'camera');
    await bob.event('unpublished', (e) => e.track === old);
    await bob.event('unsubscribed', (e) => e.sid === old);
    await bob.sees(alice, { video: false });
    await alice.call('film', { color: [200, 30, 30] });
    await bob.sees(alice);
    claim((await track(bob, alice)).sid !== old, 'the new track has the old id');
  }
  await bob.call('subscribe', 'alice', 'camera', false);
  await bob.event('unsubscribed', (e) => e.source === 'camera');
  await bob.call('subscribe', 'alice', 'camera', true);
  await bob.sees(alice);
  claim(remotes.alice.sid === (await bob.snapshot()).remotes.alice.sid, 'alice became somebody else');
}

async function speakers(stage) {
  const [alice, bob] = await pair(stage);
  await alice.publish();
  await bob.publish();
  await allSee([alice, bob]);
  const speaking = (names) => Promise.all([alice, bob].map((peer) => until(`${peer.identity} notes that [${names}] speak`,
    async () => (await peer.snapshot()).speakers.sort().join() === names.join(), 10)));
  await speaking(['alice', 'bob']);
  await bob.call('loudness', 0);
  await speaking(['alice']);
  await alice.call('loudness', 0);
  const time = stopwatch();
  await speaking([]);
  const silent = time();
  const loud = stopwatch();
  await bob.call('loudness', 0.3);
  await speaking(['bob']);
  return `silence seen after ${silent} s, speech after ${loud()} s`;
}

async function quality(stage) {
  const [alice, bob] = await pair(stage);
  await alice.publish();
  await bob.publish();
  await allSee([alice, bob]);
  const good = (value) => value === 'excellent' || value === 'good';
  await Promise.all([[alice, bob], [bob, alice]].map(([peer, other]) => until(`${peer.identity} knows the quality of both`, async () => {
    const { self, remotes } = await peer.snapshot();
    claim(good(self.quality) && good(remotes[other.identity].quality), `self ${self.quality}, other ${remotes[other.identity].quality}`);
    return true;
  }, 20)));
  const lost = (await Promise.all([alice.events('quality'), bob.events('quality')])).flat().filter((e) => e.quality === 'lost');
  claim(lost.length === 0, 'a quality of lost was reported with all well');
}

async function screen(stage) {
  const [alice, bob] = await pair(stage);
  await alice.publish();
  await bob.sees(alice);
  await alice.call('enable', 'screen_share', true);
  await bob.sees(alice, { source: 'screen_share', color: false, frames: 3 });
  await bob.sees(alice);
  await alice.call('enable', 'screen_share', false);
  await bob.event('unpublished', (e) => e.source === 'screen_share');
  await bob.sees(alice);
}

// codecs publishes with one codec after the other, encrypted too where the client can (it refuses AV1).
async function codecs(stage) {
  const server = await stage.server();
  const [alice, bob] = [await stage.peer('alice'), await stage.peer('bob')];
  const done = [];
  for (const [codec, keyring] of [['vp9'], ['vp9', ring], ['h264'], ['h264', ring], ['av1']]) {
    const label = `${codec}${keyring ? ' e2ee' : ''}`;
    const room = `${stage.room} ${label}`;
    if (done.length) await Promise.all([alice.reload(), bob.reload()]);
    await alice.join(server, room, { keyring });
    await bob.join(server, room, { keyring, single: false });
    await alice.publish({ videoCodec: codec, backupCodec: false });
    await bob.sees(alice).catch((error) => { throw new Error(`${label}: ${error.message}`, { cause: error }); });
    const now = await track(bob, alice);
    claim(now.codec.toLowerCase() === `video/${codec}`, `${label}: decodes ${now.codec}`);
    done.push(label);
  }
  return done.join(', ');
}

export const media = [
  { name: 'layers', about: 'the picture follows the size of its element, and pauses when hidden', run: layers },
  { name: 'dynacast', about: 'layers that nobody watches are not sent', run: dynacast },
  { name: 'mute', about: 'camera and microphone off and on, devices closed meanwhile', run: mute },
  { name: 'mute kept', about: 'muted tracks whose source the application keeps', run: muteKept },
  { name: 'unpublish', about: 'unpublish, publish again, unsubscribe, subscribe again', run: unpublish },
  { name: 'speakers', about: 'who speaks is known to all, silence too', run: speakers },
  { name: 'quality', about: 'connection quality of oneself and others, never a false "lost"', run: quality },
  { name: 'screen', about: 'a screen share beside the camera', run: screen },
  { name: 'codecs', about: 'VP9, H264 and AV1, encrypted where the client can', seconds: 120, run: codecs },
];
