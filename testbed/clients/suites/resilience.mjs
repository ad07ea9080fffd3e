// What goes wrong in real life. Each case ends with media flowing again, everybody there once, and nobody having done anything.
import { setTimeout as pause } from 'node:timers/promises';
import { askForToken, launchBehindLink, serverSide, startHomeserver, startProxy } from '../faults.mjs';
import { allSee } from '../peer.mjs';
import { claim, stopwatch, until } from '../wait.mjs';

const cutSeconds = 5;
const small = { frames: 5 };

// flowing publishes from both and waits until both receive.
async function flowing(alice, bob) {
  await alice.publish();
  await bob.publish();
  await allSee([alice, bob], small);
}

// once waits until both receive each other, once each, and the server agrees; returns the seconds it took until media flowed.
async function once(alice, bob, server, room, seconds = 40) {
  const time = stopwatch();
  await allSee([alice, bob], { ...small, seconds });
  const took = time();
  await alice.others([bob.identity]);
  await bob.others([alice.identity]);
  await allSee([alice, bob], small);
  const names = (await server.participants(room)).map((p) => p.identity).sort().join();
  claim(names === [alice.identity, bob.identity].sort().join(), `the server lists [${names}]`);
  return took;
}

async function reload(stage) {
  const server = await stage.server();
  const [alice, bob] = [await stage.peer('alice'), await stage.peer('bob')];
  await alice.join(server, stage.room);
  await bob.join(server, stage.room, { single: false });
  await flowing(alice, bob);
  const times = [];
  for (const peer of [alice, bob]) {
    const time = stopwatch();
    await peer.reload();
    await peer.join(server, stage.room, { single: peer === alice });
    await peer.publish();
    await once(alice, bob, server, stage.room);
    times.push(`${peer.joined.mode} back after ${time()} s`);
  }
  return times.join(', ');
}

// The websocket breaks and cannot be opened again for five seconds; media has a way of its own and must not even notice.
async function websocketCut(stage) {
  const server = await stage.server();
  const proxy = await startProxy(server.ports.http);
  stage.after(() => proxy.close());
  const [alice, bob] = [await stage.peer('alice'), await stage.peer('bob')];
  await alice.join({ url: proxy.url, token: server.token.bind(server) }, stage.room);
  await bob.join({ url: proxy.url, token: server.token.bind(server) }, stage.room, { single: false });
  await flowing(alice, bob);
  const before = [await alice.snapshot(), await bob.snapshot()];
  proxy.cut();
  const cut = stopwatch();
  await allSee([alice, bob], small);
  await until('five seconds', () => cut() >= cutSeconds, cutSeconds + 1);
  const mended = stopwatch();
  proxy.mend();
  await Promise.all([alice, bob].map((peer) => peer.event('reconnected', () => true, 30)));
  const back = mended();
  await once(alice, bob, server, stage.room);
  const after = [await alice.snapshot(), await bob.snapshot()];
  after.forEach((now, i) => claim(now.self.sid === before[i].self.sid, `${now.self.identity} did not resume but joined anew`));
  await alice.call('mute', 'camera', true); // signalling works both ways again
  await bob.event('muted', (e) => e.source === 'camera');
  await bob.call('unpublish', 'camera');
  await alice.event('unpublished', (e) => e.source === 'camera');
  await bob.call('film', { color: bob.person.color });
  await alice.sees(bob, small);
  return `media went on, resumed ${back} s after the network was back`;
}

// behindLink puts alice behind a link, plays what cuts it for five seconds, and expects everything back.
const behindLink = (how, single) => async (stage) => {
  const { world } = stage;
  const pages = (await world.pages()).url(serverSide);
  const { browser, play } = await launchBehindLink(world, stage, pages);
  const server = await stage.ownServer({ address: serverSide });
  const [alice, bob] = [await stage.peer('alice', browser, pages), await stage.peer('bob')];
  await alice.join(server, stage.room, { single });
  await bob.join(server, stage.room);
  await flowing(alice, bob);
  const before = await alice.snapshot();
  await play({ loss: 1, ...how }, { at_s: cutSeconds });
  const cut = stopwatch();
  await until('the cut', () => cut() >= cutSeconds, cutSeconds + 1);
  const took = await once(alice, bob, server, stage.room);
  const after = await alice.snapshot();
  const { local } = await alice.call('transport');
  return `flowing ${took} s after the network was back, ${after.self.sid === before.self.sid ? 'same session' : 'joined anew'}, over ${local.protocol}`;
};

// beyond sets up a call of which alice's end is behind a link in the given state from the start.
async function beyond(stage, conditions) {
  const { world } = stage;
  const pages = (await world.pages()).url(serverSide);
  const { browser, play } = await launchBehindLink(world, stage, pages);
  const server = await stage.ownServer({ address: serverSide });
  const [alice, bob] = [await stage.peer('alice', browser, pages), await stage.peer('bob')];
  await play(conditions);
  await alice.join(server, stage.room);
  await bob.join(server, stage.room, { single: false });
  await flowing(alice, bob);
  return [alice, bob, play];
}

// A network that lets no UDP through: media takes the TCP port.
async function noUdp(stage) {
  const [alice, bob] = await beyond(stage, { loss: 1, only: 'udp' });
  const { local } = await alice.call('transport');
  claim(local.protocol === 'tcp', `alice is connected over ${local.protocol}`);
  await allSee([alice, bob], { frames: 60 });
  return `connected over TCP in ${alice.joined.milliseconds} ms`;
}

// One packet in twenty is lost each way: what is lost is asked for and sent again, in both directions, and the picture goes on.
async function lossy(stage) {
  const [alice, bob, play] = await beyond(stage, { delay_ms: 20 });
  const figures = async (peer, other) => (await peer.snapshot()).remotes[other.identity].tracks.camera;
  const before = [await figures(alice, bob), await figures(bob, alice)];
  await play({ delay_ms: 20, loss: 0.05 });
  await allSee([alice, bob], { frames: 150, seconds: 40 });
  const after = [await figures(alice, bob), await figures(bob, alice)];
  const notes = after.map((now, i) => {
    const frozen = now.totalFreezesDuration - before[i].totalFreezesDuration;
    claim(frozen < 3, `${frozen.toFixed(1)} s of about 10 s frozen`);
    return `${now.framesDecoded - before[i].framesDecoded} frames with ${now.freezeCount - before[i].freezeCount} freezes`;
  });
  const { nackCount } = (await figures(alice, bob));
  claim(nackCount > 0, 'alice asked for nothing again');
  const { camera } = (await alice.snapshot()).locals;
  claim(camera.encodings.some((e) => e.retransmittedPacketsSent > 0), 'alice sent nothing again');
  return `down ${notes[0]}, up ${notes[1]}`;
}

const restart = (signal) => async (stage) => {
  const server = await stage.ownServer();
  const [alice, bob] = [await stage.peer('alice'), await stage.peer('bob')];
  await alice.join(server, stage.room);
  await bob.join(server, stage.room, { single: false });
  await flowing(alice, bob);
  const stopping = stopwatch();
  const how = await server.stop(signal);
  const stopped = stopping();
  claim(!how.late, 'the server did not end within 15 s');
  await pause(2000); // what an upgrade takes
  await server.start();
  const took = await once(alice, bob, server, stage.room);
  return `stopped in ${stopped} s, flowing ${took} s after the start`;
};

async function killedTab(stage) {
  const server = await stage.server();
  const [alice, bob] = [await stage.peer('alice'), await stage.peer('bob')];
  await alice.join(server, stage.room);
  await bob.join(server, stage.room);
  await flowing(alice, bob);
  const time = stopwatch();
  await alice.tab.crash();
  await bob.event('left', (e) => e.identity === 'alice', 25);
  const gone = time();
  await bob.others([]);
  const again = await stage.peer('alice');
  await again.join(server, stage.room);
  await again.publish();
  await once(again, bob, server, stage.room);
  return `gone after ${gone} s, then back once`;
}

// Opened again before anybody could notice that it had gone.
async function killedTabAtOnce(stage) {
  const server = await stage.server();
  const [alice, bob] = [await stage.peer('alice'), await stage.peer('bob')];
  await alice.join(server, stage.room);
  await bob.join(server, stage.room);
  await flowing(alice, bob);
  const time = stopwatch();
  await alice.tab.crash();
  const again = await stage.peer('alice');
  await again.join(server, stage.room);
  await again.publish();
  await once(again, bob, server, stage.room);
  const back = time();
  await pause(20_000 - back * 1000); // the crashed session times out meanwhile: that must not take the new one with it
  await once(again, bob, server, stage.room);
  return `back after ${back} s, and still there when the old session had timed out`;
}

// Rooms are not made for anybody, only for those whose token we signed as full-access members: after a restart theirs is made anew.
async function roomAnew(stage) {
  const matrixRoom = '!room:example.test';
  const homeserver = await startHomeserver();
  stage.after(() => homeserver.close());
  const server = await stage.ownServer({ autoCreate: false, homeservers: [{ server_name: 'example.test', federation: homeserver.url, unverified: 'allow' }] });
  const [alice, bob] = [await stage.peer('alice'), await stage.peer('bob')];
  const tokens = {};
  for (const peer of [alice, bob]) tokens[peer.identity] = await tokenFor(server, peer, matrixRoom, stage);
  await alice.join(server, '', { token: tokens.alice.jwt });
  await bob.join(server, '', { token: tokens.bob.jwt, single: false });
  const named = (peer) => Object.assign(Object.create(peer), { identity: tokens[peer.identity].identity });
  await alice.publish();
  await bob.publish();
  const see = async (seconds) => {
    await alice.others([named(bob).identity], seconds);
    await bob.others([named(alice).identity], seconds);
    await Promise.all([alice.sees(named(bob), small), bob.sees(named(alice), small)]);
  };
  await see(10);
  await server.stop('SIGKILL');
  await pause(1000);
  await server.start();
  const time = stopwatch();
  await see(40);
  const outsider = server.token('carol', (await alice.snapshot()).name);
  const carol = await stage.peer('carol');
  await carol.join(server, '', { token: outsider }); // the room exists now
  const nowhere = await (await stage.peer('dave')).join(server, '', { token: server.token('dave', 'nowhere') }).then(() => 'joined', (error) => error.message);
  claim(nowhere.includes('"status":404'), `a room nobody may make: ${nowhere}`);
  return `the room was there again, with media, ${time()} s after the start`;
}

// tokenFor asks our authoriser; the reference has none, there the right to make the room stands in the token.
async function tokenFor(server, peer, matrixRoom, stage) {
  if (server.reference) return { jwt: server.token(peer.identity, stage.room, { video: { roomCreate: true } }), identity: peer.identity };
  const { jwt } = await askForToken(server, peer.identity, matrixRoom);
  return { jwt, identity: JSON.parse(Buffer.from(jwt.split('.')[1], 'base64url')).sub };
}

export const resilience = [
  { name: 'reload', about: 'the page is loaded anew', run: reload },
  { name: 'websocket cut', about: 'no websocket for 5 s', run: websocketCut },
  { name: 'udp cut', about: 'no UDP for 5 s', run: behindLink({ only: 'udp' }, true) },
  { name: 'udp cut v0', about: 'no UDP for 5 s, two peer connections', run: behindLink({ only: 'udp' }, false) },
  { name: 'network cut', about: 'no packet at all for 5 s', run: behindLink({}, true) },
  { name: 'no udp', about: 'a network without UDP', run: noUdp },
  { name: 'lossy', about: 'five per cent of all packets lost', run: lossy },
  { name: 'restart', about: 'the server stops when asked and starts again', run: restart('SIGTERM') },
  { name: 'restart killed', about: 'the server is killed and starts again', run: restart('SIGKILL') },
  { name: 'killed tab', about: 'a tab that dies is gone within 25 s and comes back once', run: killedTab },
  { name: 'killed tab at once', about: 'a tab that dies and is opened again at once', run: killedTabAtOnce },
  { name: 'room anew', about: 'a token of ours makes its room anew after a restart, another does not', run: roomAnew },
];
