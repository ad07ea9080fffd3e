// One participant in a browser, as a test drives it, and what tests ask about it.
import { claim, until, within } from './wait.mjs';

// People of the tests: a colour and a tone each, far enough apart to tell them after lossy coding.
export const people = {
  alice: { color: [200, 30, 30], frequency: 500 },
  bob: { color: [30, 180, 30], frequency: 900 },
  carol: { color: [40, 40, 210], frequency: 1400 },
  dave: { color: [200, 190, 30], frequency: 2000 },
};

export class Peer {
  constructor(identity, tab, pageUrl, browser) {
    Object.assign(this, { identity, tab, pageUrl, browser, person: people[identity], console: [] });
    tab.page.on('console', (message) => this.console.push(message.text().slice(0, 500)));
    tab.page.on('pageerror', (error) => this.console.push(`page error: ${error.message}`));
  }

  async open() {
    await this.tab.page.goto(this.pageUrl);
    await this.#ready();
    return this;
  }

  async #ready() {
    await this.tab.page.waitForFunction('!!window.peer', { timeout: 30_000 });
  }

  // reload is the person pressing the key: the page goes with its unload handlers and starts anew.
  async reload() {
    await this.tab.page.reload();
    await this.#ready();
  }

  call(method, ...parameters) {
    return within(30, `${this.identity} ${method}`, this.tab.page.evaluate(([m, p]) => window.peer[m](...p), [method, parameters]));
  }

  async join(server, room, options = {}) {
    const { token, ...rest } = options;
    this.joined = await this.call('join', { url: server.url, token: token ?? server.token(this.identity, room), ...rest });
    return this.joined;
  }

  // publish sends this person's tone and colour.
  async publish(video = {}) {
    const { color, frequency } = this.person;
    await this.call('speak', { frequency });
    await this.call('film', { color, ...video });
  }

  snapshot() {
    return this.call('snapshot');
  }

  events(type) {
    return this.call('events', type);
  }

  // sees waits until this peer decodes what other publishes: bytes, frames and audio rising, the picture in the other's colour, the
  // sound at the other's pitch. frames is how many more must be decoded from now on.
  async sees(other, { seconds = 20, frames = 15, audio = true, video = true, tone = true, color = true, source = 'camera' } = {}) {
    const first = (await this.snapshot()).remotes[other.identity]?.tracks ?? {};
    return until(`${this.identity} receives ${other.identity}`, async () => {
      const snapshot = await this.snapshot();
      const person = snapshot.remotes[other.identity];
      claim(person, () => `not in the room (sees ${Object.keys(snapshot.remotes)}; ${snapshot.state})`);
      if (video) this.#checkVideo(person.tracks[source], first[source], other, frames, color);
      if (audio) this.#checkAudio(person.tracks.microphone, first.microphone, other, tone);
      return snapshot;
    }, seconds);
  }

  #checkVideo(now, before, other, frames, color) {
    claim(now?.subscribed, 'no video track');
    claim(now.count === 1, `${now.count} video tracks of the same source`);
    const base = before?.sid === now.sid ? before : {};
    const decoded = (now.framesDecoded ?? 0) - (base.framesDecoded ?? 0);
    claim(decoded >= frames, () => `${decoded} of ${frames} video frames decoded (${JSON.stringify(now)})`);
    claim(now.bytesReceived > (base.bytesReceived ?? 0), 'no video bytes');
    claim(now.color && Math.max(...now.color) > 16, 'picture black');
    const want = other.person?.color;
    if (color && want) claim(distance(now.color, want) < 60, `picture is ${now.color}, not ${want}`);
  }

  #checkAudio(now, before, other, tone) {
    claim(now?.subscribed, 'no audio track');
    claim(now.count === 1, `${now.count} microphones`);
    const base = before?.sid === now.sid ? before : {};
    claim(now.bytesReceived > (base.bytesReceived ?? 0), 'no audio bytes');
    claim(now.totalAudioEnergy > (base.totalAudioEnergy ?? 0), () => `no sound (${JSON.stringify(now)})`);
    const want = other.person?.frequency;
    if (tone && want) claim(Math.abs(now.tone - want) < 50, `tone is ${now.tone} Hz, not ${want}`);
  }

  // alone waits until the others in the room are exactly these identities, once each, with at most one track a source.
  async others(identities, seconds = 10) {
    return until(`${this.identity} sees exactly [${identities}]`, async () => {
      const { remotes } = await this.snapshot();
      const found = Object.keys(remotes).sort().join();
      claim(found === [...identities].sort().join(), `sees [${found}]`);
      for (const person of Object.values(remotes)) {
        for (const [source, track] of Object.entries(person.tracks)) claim(track.count === 1, `${person.identity} has ${track.count} ${source}`);
      }
      return remotes;
    }, seconds);
  }

  // event waits for an event of that type that matches.
  async event(type, matches = () => true, seconds = 10) {
    return until(`${this.identity} notes "${type}"`, async () => (await this.events(type)).find(matches), seconds);
  }

  close() {
    return this.tab.close();
  }
}

const distance = (a, b) => Math.hypot(...a.map((value, i) => value - b[i]));

// allSee waits until every one of peers receives every other.
export async function allSee(peers, options) {
  await Promise.all(peers.flatMap((a) => peers.filter((b) => b !== a).map((b) => a.sees(b, options))));
}
