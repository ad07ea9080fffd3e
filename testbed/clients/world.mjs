// What the cases share (browsers, one server, the page) and what each has for itself (its room, its peers, servers it may stop).
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { launchChromium, launchFirefox } from './browsers.mjs';
import { Peer } from './peer.mjs';
import { finish, stopAll } from './process.mjs';
import { startServer } from './server.mjs';
import { servePages } from './web.mjs';

export class World {
  #made = new Map();

  constructor({ repository, directory, out, reference, ownAddress, chromium = {} }) {
    Object.assign(this, { repository, directory, out, reference, ownAddress, chromium });
  }

  // once makes a thing the first time it is asked for.
  #once(name, make) {
    if (!this.#made.has(name)) this.#made.set(name, make());
    return this.#made.get(name);
  }

  build(name, path) {
    return this.#once(`build ${name}`, async () => {
      const target = join(this.directory, name);
      await finish('go', ['build', '-tags', 'goolm', '-o', target, path], { cwd: this.repository, env: { ...process.env, CGO_ENABLED: '0' } });
      return target;
    });
  }

  // pages serves the peers' page, in a namespace of our own on every address.
  pages() { return this.#once('pages', () => servePages(this.ownAddress ? '::' : '127.0.0.1')); }

  browser(kind) { return this.#once(kind, () => (kind === 'firefox' ? launchFirefox() : launchChromium(this.chromium))); }

  // server is the one that most cases share; startServer makes one that a case may stop.
  server() { return this.#once('server', () => this.startServer({ name: 'shared' })); }

  async startServer(options) {
    const binary = this.reference ?? process.env.CALLSERVER ?? await this.build('callserver', './cmd/callserver');
    return startServer({ binary, reference: Boolean(this.reference), directory: this.directory, ...options });
  }

  stage(name) { return new Stage(this, name); }

  async close() {
    if (this.interrupted) await stopAll(); // builds and servers on their way come to an end
    for (const [name, made] of this.#made) {
      if (name.startsWith('build ')) continue;
      const thing = await made.catch(() => undefined);
      await (thing?.close?.() ?? thing?.stop?.());
    }
    await stopAll();
  }
}

// Stage belongs to one case and goes with it.
class Stage {
  #closers = [];

  peers = [];

  servers = [];

  constructor(world, name) {
    Object.assign(this, { world, name, room: `${name}-${Math.random().toString(36).slice(2, 8)}` });
  }

  // peer opens a page for identity; browser is a kind or a browser of the case's own, which may find the page at another address.
  async peer(identity, browser = 'chromium', pageUrl = undefined) {
    const host = typeof browser === 'string' ? await this.world.browser(browser) : browser;
    const peer = new Peer(identity, await host.page(), pageUrl ?? (await this.world.pages()).url(), host.name);
    this.peers.push(peer);
    return peer.open();
  }

  async server() {
    const server = await this.world.server();
    if (!this.servers.includes(server)) this.servers.push(server);
    return server;
  }

  async ownServer(options = {}) {
    const server = await this.world.startServer({ name: this.name.replaceAll(' ', '-'), ...options });
    this.servers.push(server);
    this.after(() => server.stop());
    return server;
  }

  // after registers what must be undone when the case ends, last first.
  after(close) { this.#closers.push(close); }

  // evidence writes what was seen into files and returns where they are.
  async evidence(error) {
    const directory = join(this.world.out, this.name.replaceAll(' ', '-'));
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'error.txt'), `${error.stack}\n`);
    await Promise.all(this.peers.map(async (peer) => {
      const seen = await Promise.race([
        Promise.all([peer.snapshot(), peer.events(), peer.tab.screenshot(join(directory, `${peer.identity}.png`))]).catch((e) => [String(e)]),
        new Promise((resolve) => { setTimeout(resolve, 5000, ['no answer']); }),
      ]);
      writeFileSync(join(directory, `${peer.identity}.json`), JSON.stringify({ snapshot: seen[0], events: seen[1], console: peer.console }, null, 2));
    }));
    for (const server of this.servers) writeFileSync(join(directory, `${server.name}.log`), server.tail(4000));
    return `see ${directory}`;
  }

  async close() {
    for (const peer of this.peers) await peer.close().catch(() => {});
    for (const close of this.#closers.reverse()) await close();
  }
}
