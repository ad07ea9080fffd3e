// A Stack is everything a call needs, running: a homeserver with its front,
// callserver, and the site with Element Call. It owns their directory and
// their ports, and stops what it started in reverse order.
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";

import { Site } from "../elementcall/site.mjs";
import { Homeserver } from "../homeservers/homeserver.mjs";
import { goProgram, say } from "../process/cache.mjs";
import { atEnd, freePorts, Process } from "../process/process.mjs";

export class Stack {
  #closers = [];

  /**
   * Starts everything. When a part does not start, the caller's stopAll ends those before it.
   * @param {{kind: string, logs: string, names: string[], widget?: string, elementCall?: object, rooms: object, environment?: object, maxDelay?: string}} options
   *   kind: dendrite or synapse; names: users to register; widget: directory of the bundled widget host;
   *   rooms: name -> {encrypted}; elementCall: more of its config.json; environment: settings of callserver by their
   *   variables; maxDelay: the longest delay that the homeserver allows
   */
  static async start(options) {
    const stack = new Stack();
    try {
      await stack.#start(options);
    } catch (error) {
      await stack.stop();
      throw error;
    }
    return stack;
  }

  async #start({ kind, logs, names, widget, elementCall, rooms, environment = {}, maxDelay }) {
    await mkdir(logs, { recursive: true });
    this.directory = await mkdtemp(join(tmpdir(), "callserver-testbed-"));
    const remove = () => rm(this.directory, { recursive: true, force: true });
    this.#closers.push(remove);
    atEnd(remove);

    const [http, admin, udp, tcp] = await freePorts(4);
    this.callserverURL = `http://127.0.0.1:${http}`;
    this.adminURL = `http://127.0.0.1:${admin}`;
    /** What the transports answer and every membership event must name. */
    this.serviceURL = `${this.callserverURL}/livekit/jwt`;

    this.homeserver = new Homeserver(kind);
    await this.homeserver.reserve();
    this.#closers.push(() => this.homeserver.stop());
    /** Files that the homeserver and callserver have: narrow and wide. */
    this.registrations = await this.homeserver.registrations(this.directory, this.callserverURL);
    await this.homeserver.start({
      directory: this.directory,
      logs,
      callserver: this.callserverURL,
      registrations: Object.values(this.registrations),
      maxDelay,
    });
    say(`${kind} serves ${this.homeserver.name} at ${this.homeserver.url}`);

    Object.assign(this, { logs, environment });
    this.key = { name: "demo", secret: randomBytes(24).toString("hex") };
    this.configuration = join(this.directory, "callserver.yaml");
    await writeFile(this.configuration, configuration({ http, admin, udp, tcp }, this));
    this.#closers.push(() => this.callserver?.stop());
    await this.startCallserver();
    say(`callserver at ${this.callserverURL}, media on port ${udp}`);

    await this.#fill(names, rooms);
    this.site = new Site({
      homeserver: this.homeserver,
      users: this.users,
      room: Object.values(this.rooms)[0],
      widget,
      config: elementCall,
    });
    await this.site.start();
    this.#closers.push(() => this.site.stop());
  }

  /** Starts callserver, the first time or after it was stopped or killed, and returns once it answers. */
  async startCallserver() {
    // CALLSERVER names a program to use instead of one built from this tree.
    this.program ??= process.env.CALLSERVER ?? (await goProgram("cmd/callserver"));
    const command = [this.program, "serve", "--config", this.configuration];
    this.callserver = new Process("callserver", command, {
      log: join(this.logs, "callserver.log"),
      env: this.environment,
    });
    await this.callserver.answers(`${this.callserverURL}/healthz`, 20_000);
  }

  async #fill(names, rooms) {
    this.users = [];
    for (const name of names) {
      this.users.push(await this.homeserver.register(name, `${name}-${randomBytes(6).toString("hex")}`));
    }
    const [first, ...others] = this.users;
    this.rooms = {};
    for (const [name, { encrypted }] of Object.entries(rooms)) {
      this.rooms[name] = await first.createRoom({ name, encrypted, invite: others });
      for (const user of others) await user.join(this.rooms[name]);
    }
  }

  /** Writes what callserver says of itself, to find out why. Never throws. */
  async report(directory) {
    for (const [path, name] of [
      ["/metrics", "callserver.metrics"],
      ["/debug/pprof/goroutine?debug=2", "callserver.goroutines"],
    ]) {
      const text = await fetch(this.adminURL + path, { signal: AbortSignal.timeout(5_000) })
        .then((response) => response.text())
        .catch((error) => `${path}: ${error.message}\n`);
      await writeFile(join(directory, name), text);
    }
  }

  async stop() {
    for (const close of this.#closers.splice(0).reverse()) await close();
  }
}

/** Where browsers on this machine reach it: those without a flag for it gather no loopback candidate, a machine without network has nothing else. */
function addresses() {
  const others = Object.values(networkInterfaces()).flat().filter(({ family, internal }) => family === "IPv4" && !internal);
  return ["127.0.0.1", ...others.map(({ address }) => address)];
}

/** The configuration an operator would write: the homeserver is found by its name and checked by federation over TLS. */
function configuration({ http, admin, udp, tcp }, { homeserver, registrations, key, callserverURL }) {
  return `http:
  listen: 127.0.0.1:${http}
  public_url: ${callserverURL}
admin:
  listen: 127.0.0.1:${admin}
media:
  udp_port: ${udp}
  tcp_port: ${tcp}
  advertise: [${addresses().join(", ")}]
keys:
  ${key.name}: ${key.secret}
homeservers:
  - server_name: ${homeserver.name}
    client_api: ${homeserver.url}
    registration: [${registrations.narrow}, ${registrations.wide}]
federation_ca_file: ${homeserver.authority}
`;
}
