import { ConnectionError, ConnectionErrorReason, DisconnectReason, type Room, Track } from 'livekit-client';
import { flushSync, mount, tick, unmount } from 'svelte';
import { afterEach, describe, expect, test, vi } from 'vitest';
import App from './App.svelte';
import { explain, farewell, hindrance } from './explain';
import { developmentToken, linkedRoom, serverURL, tabIdentity } from './server';
import { tiles } from './tiles';

type Publication = { track: object; isMuted: boolean };

function person(identity: string, sources: Partial<Record<Track.Source, Publication>>, more = {}) {
  return {
    identity,
    name: '',
    isLocal: false,
    isSpeaking: false,
    getTrackPublication: (source: Track.Source) => sources[source],
    ...more,
  };
}

function room(...people: ReturnType<typeof person>[]) {
  const [localParticipant, ...others] = people;
  return { localParticipant, remoteParticipants: new Map(others.map((p) => [p.identity, p])) } as unknown as Room;
}

describe('tiles', () => {
  const live = (track: object) => ({ track, isMuted: false });

  test('everybody has one, screens come first, a muted camera shows no picture', () => {
    const [camera, screen, voice] = [{}, {}, {}];
    const got = tiles(
      room(
        person('me', { [Track.Source.Microphone]: live({}) }, { isLocal: true, name: 'Me' }),
        person('bob', { [Track.Source.Camera]: { track: {}, isMuted: true }, [Track.Source.Microphone]: { track: voice, isMuted: true } }),
        person('eve', { [Track.Source.Camera]: live(camera), [Track.Source.ScreenShare]: live(screen) }, { isSpeaking: true }),
      ),
    );
    expect(got.map((t) => [t.key, t.name, t.muted, t.speaking])).toEqual([
      ['eve/screen', 'eve (screen)', false, false],
      ['me', 'Me', false, false],
      ['bob', 'bob', true, false],
      ['eve', 'eve', true, true],
    ]);
    expect(got[0]?.video).toBe(screen);
    expect(got[2]?.video).toBeUndefined();
    expect(got[2]?.audio).toBe(voice);
    expect(got[3]?.video).toBe(camera);
  });

  test('nobody hears themself', () => {
    const me = person('me', { [Track.Source.Microphone]: live({}) }, { isLocal: true });
    expect(tiles(room(me))[0]?.audio).toBeUndefined();
  });
});

describe('words for errors', () => {
  test.each([
    [ConnectionError.notAllowed('token is expired', 401), 'token is expired'],
    [ConnectionError.notAllowed('requested room does not exist', 404), 'not open'],
    [ConnectionError.serverUnreachable('x'), 'cannot be reached'],
    [Object.assign(new Error('x'), { name: 'NotAllowedError' }), 'did not allow'],
    [Object.assign(new Error('x'), { name: 'NotFoundError' }), 'No such device'],
    [new Error('said plainly'), 'said plainly'],
    ['?', 'Something went wrong.'],
  ])('%s', (error, want) => expect(explain(error)).toContain(want));

  test('the reasons of the client are known here', () => {
    expect(ConnectionErrorReason.NotAllowed).toBeDefined();
    expect(farewell(DisconnectReason.CLIENT_INITIATED)).toBe('');
    expect(farewell(DisconnectReason.DUPLICATE_IDENTITY)).toContain('another window');
    expect(farewell(undefined)).toContain('lost');
  });

  test('an insecure page says what to do', () => {
    expect(hindrance({ isSecureContext: false, RTCPeerConnection: {}, navigator: {} })).toContain('https');
    expect(hindrance({ isSecureContext: true, RTCPeerConnection: {}, navigator: { mediaDevices: {} } })).toBe('');
  });
});

describe('server', () => {
  test.each([
    ['http://127.0.0.1:7880/', 'ws://127.0.0.1:7880'],
    ['https://call.example.org/a/index.html?x#lobby', 'wss://call.example.org/a'],
  ])('serverURL(%s)', (page, want) => expect(serverURL(page)).toBe(want));

  test('a refused token says why', async () => {
    const refuse = vi.fn(async () => new Response('the room has no name\n', { status: 400 }));
    await expect(developmentToken('', 'x', 'y', refuse)).rejects.toThrow('the room has no name');
  });

  test('a tab keeps its identity', () => {
    const first = tabIdentity();
    expect(first).toMatch(/^web-[0-9a-f]{16}$/);
    expect(tabIdentity()).toBe(first);
  });

  test('rooms in links', () => {
    expect(linkedRoom('#caf%C3%A9')).toBe('café');
    expect(linkedRoom('#%')).toBe('');
    expect(linkedRoom('')).toBe('');
  });
});

describe('the door', () => {
  let app: ReturnType<typeof mount> | undefined;

  async function open(development: boolean) {
    vi.stubGlobal('fetch', async () => Response.json({ development }));
    app = mount(App, { target: document.body });
    flushSync();
    await vi.waitFor(async () => {
      await tick();
      expect(document.querySelector('input[name=token]') === null).toBe(development);
    });
    return [...document.querySelectorAll('input')].map((input) => input.name);
  }

  afterEach(async () => {
    if (app) await unmount(app);
    vi.unstubAllGlobals();
  });

  test('asks for name and room in development', async () => expect(await open(true)).toEqual(['name', 'room']));
  test('asks for a token otherwise', async () => expect(await open(false)).toEqual(['token']));
});
