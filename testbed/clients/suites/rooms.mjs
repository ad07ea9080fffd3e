// What people in a room tell each other besides media, and who is let in.
import { setTimeout as pause } from 'node:timers/promises';
import { claim, until } from '../wait.mjs';

async function trio(stage) {
  const server = await stage.server();
  const peers = [await stage.peer('alice'), await stage.peer('bob'), await stage.peer('carol')];
  for (const [i, peer] of peers.entries()) await peer.join(server, stage.room, { single: i !== 1 });
  for (const peer of peers) await peer.others(peers.filter((p) => p !== peer).map((p) => p.identity));
  return peers;
}

async function data(stage) {
  const [alice, bob, carol] = await trio(stage);
  for (const reliable of [true, false]) {
    const text = `to all, ${reliable}`;
    await alice.call('send', text, { reliable, topic: 'test' });
    for (const peer of [bob, carol]) await peer.event('data', (e) => e.text === text && e.identity === 'alice' && e.reliable === reliable && e.topic === 'test');
    const direct = `to alice only, ${reliable}`;
    await bob.call('send', direct, { reliable, destinationIdentities: ['alice'] });
    await alice.event('data', (e) => e.text === direct && e.identity === 'bob' && e.reliable === reliable);
  }
  for (let i = 0; i < 50; i += 1) await carol.call('send', `number ${i}`, { reliable: true });
  for (const peer of [alice, bob]) {
    await peer.event('data', (e) => e.text === 'number 49');
    const numbers = (await peer.events('data')).filter((e) => e.text.startsWith('number')).map((e) => Number(e.text.slice(7)));
    claim(numbers.join() === [...Array(50).keys()].join(), `${peer.identity} got ${numbers}`);
  }
  claim(!(await carol.events('data')).some((e) => e.text.includes('alice only')), 'carol read what was for alice');
  claim(!(await alice.events('data')).some((e) => e.identity === 'alice'), 'alice hears herself');
  await bob.call('chat', 'good morning');
  for (const peer of [alice, carol]) await peer.event('chat', (e) => e.text === 'good morning' && e.identity === 'bob');
}

async function rpc(stage) {
  const [alice, bob, carol] = await trio(stage);
  await bob.call('answerRpc', 'greet');
  for (const peer of [alice, carol]) {
    const answer = await peer.call('rpc', 'bob', 'greet', 'hello');
    claim(answer === `${peer.identity} said hello`, `answer ${answer}`);
  }
  const refused = await bob.call('rpc', 'alice', 'nothing', '').then(() => 'answered', (error) => error.message);
  claim(/not supported/i.test(refused), `an unknown method: ${refused}`);
}

async function metadata(stage) {
  const [alice, bob, carol] = await trio(stage);
  await alice.call('metadata', '{"hand":"up"}');
  await alice.call('name', 'Alice Liddell');
  await alice.call('attributes', { mood: 'curious', size: 'small' });
  for (const peer of [bob, carol]) {
    await until(`${peer.identity} knows alice`, async () => {
      const seen = (await peer.snapshot()).remotes.alice;
      claim(seen.metadata === '{"hand":"up"}' && seen.name === 'Alice Liddell' && seen.attributes.mood === 'curious', JSON.stringify(seen));
      return true;
    });
  }
  await alice.call('attributes', { size: '' });
  await until('an empty attribute goes', async () => !(await bob.snapshot()).remotes.alice.attributes.size);
  const server = await stage.server();
  const dave = await stage.peer('dave');
  await dave.join(server, stage.room, { token: server.token('dave', stage.room, { name: 'Dave', metadata: 'from the token', attributes: { from: 'token' }, video: { canUpdateOwnMetadata: false } }) });
  const seen = await until('bob knows dave', async () => (await bob.snapshot()).remotes.dave);
  claim(seen.name === 'Dave' && seen.metadata === 'from the token' && seen.attributes.from === 'token', JSON.stringify(seen));
  const refused = await dave.call('metadata', 'not allowed').then(() => 'allowed', (error) => error.message);
  claim(refused !== 'allowed', 'metadata changed without the right to');
  claim((await dave.snapshot()).remotes.alice.metadata === '{"hand":"up"}', 'who joins later does not know alice');
}

async function duplicate(stage) {
  const [alice, bob, carol] = await trio(stage);
  const server = await stage.server();
  const again = await stage.peer('alice');
  await alice.publish();
  await bob.sees(alice);
  await again.join(server, stage.room);
  await alice.event('disconnected', (e) => e.reason === 'DUPLICATE_IDENTITY');
  await again.publish();
  for (const peer of [bob, carol]) {
    await peer.sees(again);
    const { alice: seen } = await peer.others([...new Set(['alice', 'bob', 'carol'])].filter((name) => name !== peer.identity));
    claim(seen.sid === again.joined.sid, 'the old session is shown');
  }
  await pause(1000); // the first session must not come back: give it the time in which a resume would
  claim((await alice.snapshot()).state === 'disconnected', 'the first session came back');
}

async function leave(stage) {
  const [alice, bob, carol] = await trio(stage);
  await carol.publish();
  await bob.sees(carol);
  await carol.call('leave');
  await bob.event('left', (e) => e.identity === 'carol', 5);
  await alice.others(['bob'], 5);
  await bob.tab.close(); // a page that is closed properly says goodbye
  await alice.others([], 5);
}

async function refused(stage) {
  const server = await stage.server();
  const alice = await stage.peer('alice');
  const join = (token, to = server) => alice.call('join', { url: to.url, token }).then(() => ({ name: 'joined' }), (error) => JSON.parse(/\{.*\}/s.exec(error.message)[0]));
  const wrong = await join(server.token('alice', stage.room).slice(0, -4) + 'abcd');
  claim(wrong.status === 401, `a forged token: ${JSON.stringify(wrong)}`);
  const old = await join(server.token('alice', stage.room, { seconds: -3600 }));
  claim(old.status === 401, `an expired token: ${JSON.stringify(old)}`);
  const outside = await join(server.token('alice', stage.room, { video: { roomJoin: false } }));
  claim(outside.status === 401, `a token without roomJoin: ${JSON.stringify(outside)}`);
  const strict = await stage.ownServer({ autoCreate: false });
  const missing = await join(strict.token('alice', 'nowhere'), strict);
  claim(missing.status === 404, `a room that does not exist: ${JSON.stringify(missing)}`);
  await alice.join(strict, 'somewhere', { token: strict.token('alice', 'somewhere', { video: { roomCreate: true } }) });
}

// A person without the right to publish or to subscribe.
async function permissions(stage) {
  const server = await stage.server();
  const [alice, bob] = [await stage.peer('alice'), await stage.peer('bob')];
  await alice.join(server, stage.room);
  await bob.join(server, stage.room, { token: server.token('bob', stage.room, { video: { canPublish: false } }) });
  await alice.publish();
  await bob.sees(alice);
  const answer = await bob.publish().then(() => 'published', (error) => error.message);
  claim(answer !== 'published', 'published without the right to');
}

export const rooms = [
  { name: 'data', about: 'data packets of both kinds, to all and to one, in order; chat', run: data },
  { name: 'rpc', about: 'remote calls between participants', run: rpc },
  { name: 'metadata', about: 'metadata, name and attributes, changed, inherited, refused', run: metadata },
  { name: 'duplicate', about: 'the same identity again replaces the first, once', run: duplicate },
  { name: 'leave', about: 'leaving and closing the page are seen at once', run: leave },
  { name: 'refused', about: 'forged, expired and unfit tokens; a room that does not exist', run: refused },
  { name: 'permissions', about: 'who may not publish does not, and still receives', run: permissions },
];
