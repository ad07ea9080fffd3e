// A Stack is everything a call needs, running: a homeserver with its front,
// callserver, and the site with Element Call. It owns their directory and
// their ports, and stops what it started in reverse order.
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";

import { mint } from "../clients/token.mjs";
import { Site } from "../elementcall/site.mjs";
import { Homeserver } from "../homeservers/homeserver.mjs";
import { goProgram, say } from "../process/cache.mjs";
import { atEnd, freePorts, Process } from "../process/process.mjs";
import { callName } from "./names.mjs";

export class Stack {
  #closers = [];

  /**
   * Starts everything. When a part does not start, the caller's stopAll ends those before it.
   * @param {{kind: string, host?: string, logs: string, names: string[], widget?: string, elementCall?: object, rooms: object, environment?: object, maxDelay?: string,
   *   privileges?: string[], relay?: boolean}} options
   *   kind: dendrite or synapse; host: of its server name; names: users to register; widget: directory of the bundled widget host;
   *   rooms: name -> {encrypted}; elementCall: more of its config.json; environment: settings of callserver by their
   *   variables; maxDelay: the longest delay that the homeserver allows; privileges: registrations that callserver has,
   *   narrow and wide by default; relay: the users' own calls have callserver's TURN
   */
  static async start(options) {
    const [stack] = await Stack.federate([options]);
    return stack;
  }

  /** Starts several Stacks that federate: each homeserver and each callserver knows the authorities of all, and where they are. */
  static async federate(list) {
    const stacks = list.map((options) => new Stack(options));
    try {
      for (const stack of stacks) await stack.#open();
      for (const stack of stacks) await stack.#start(stacks);
    } catch (error) {
      for (const stack of stacks.toReversed()) await stack.stop();
      throw error;
    }
    return stacks;
  }

  constructor(options) {
    this.options = options;
  }

  /** Chooses names, ports and the directory, and starts the front. */
  async #open() {
    const { kind, host, logs } = this.options;
    await mkdir(logs, { recursive: true });
    this.directory = await mkdtemp(join(tmpdir(), "callserver-testbed-"));
    const remove = () => rm(this.directory, { recursive: true, force: true });
    this.#closers.push(remove);
    atEnd(remove);

    const [http, admin, udp, tcp, relay] = await freePorts(5);
    this.ports = { http, admin, udp, tcp, relay };
    this.callserverURL = `http://127.0.0.1:${http}`;
    this.adminURL = `http://127.0.0.1:${admin}`;
    /** What the transports answer and every membership event must name. */
    this.serviceURL = `${this.callserverURL}/livekit/jwt`;

    this.homeserver = new Homeserver(kind, host);
    await this.homeserver.reserve();
    this.#closers.push(() => this.homeserver.stop());
    await this.homeserver.startFront({ directory: this.directory, logs, callserver: this.callserverURL });
  }

  async #start(stacks) {
    const { kind, logs, names, widget, elementCall, rooms, maxDelay, privileges = ["narrow", "wide"], relay } = this.options;
    const authorities = stacks.map(({ homeserver }) => homeserver.authority);
    const written = await this.homeserver.registrations(this.directory, this.callserverURL);
    /** Files that the homeserver and callserver have. */
    this.registrations = Object.fromEntries(privileges.map((name) => [name, written[name]]));
    this.relay = relay && { secret: randomBytes(24).toString("hex"), uris: [`turn:127.0.0.1:${this.ports.relay}?transport=udp`] };
    await this.homeserver.startServer({
      directory: this.directory,
      logs,
      registrations: Object.values(this.registrations),
      maxDelay,
      authorities,
      relay: this.relay,
    });
    say(`${kind} serves ${this.homeserver.name} at ${this.homeserver.url}`);

    await this.#configure(authorities);
    this.#closers.push(() => this.callserver?.stop());
    await this.startCallserver();
    say(`callserver at ${this.callserverURL}, media on port ${this.ports.udp}`);

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

  async #configure(authorities) {
    this.key = { name: "demo", secret: randomBytes(24).toString("hex") };
    const roots = join(this.directory, "authorities.pem");
    await writeFile(roots, (await Promise.all(authorities.map((authority) => readFile(authority, "utf8")))).join(""));
    this.configuration = join(this.directory, "callserver.yaml");
    await writeFile(this.configuration, configuration(this, roots, authorities.length > 1));
  }

  /**
   * Starts callserver, the first time or after it was stopped or killed, and returns once it answers.
   * @param {object} environment more settings by their variables
   */
  async startCallserver(environment = {}) {
    // CALLSERVER names a program to use instead of one built from this tree.
    this.program ??= process.env.CALLSERVER ?? (await goProgram("cmd/callserver"));
    const command = [this.program, "serve", "--config", this.configuration];
    this.callserver = new Process("callserver", command, {
      log: join(this.options.logs, "callserver.log"),
      env: { ...this.options.environment, ...environment },
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

  /** Who is in the call of a Matrix room: callserver's own view, by its room service. */
  async participants(room) {
    const name = callName(room);
    const token = mint({ key: this.key.name, secret: this.key.secret }, { identity: "operator", room: name, video: { roomJoin: false, roomAdmin: true } });
    const response = await fetch(`${this.callserverURL}/livekit/sfu/twirp/livekit.RoomService/ListParticipants`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ room: name }),
    });
    if (response.status === 404) return []; // no such call
    if (!response.ok) throw new Error(`ListParticipants: ${response.status} ${await response.text()}`);
    return (await response.json()).participants ?? [];
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

/** The configuration an operator would write: homeservers are found by their names and asked by federation over TLS. */
function configuration({ ports, homeserver, registrations, key, callserverURL, relay }, roots, federates) {
  return `http:
  listen: 127.0.0.1:${ports.http}
  public_url: ${callserverURL}
admin:
  listen: 127.0.0.1:${ports.admin}
media:
  udp_port: ${ports.udp}
  tcp_port: ${ports.tcp}
  advertise: [${addresses().join(", ")}]
turn: ${relay ? `{udp_port: ${ports.relay}, tcp_port: off, secrets: [${relay.secret}], relay_ports: 20000-29999}` : "{enabled: false}"}
keys:
  ${key.name}: ${key.secret}
homeservers:
  - server_name: ${homeserver.name}
    client_api: ${homeserver.url}
    registration: [${Object.values(registrations).join(", ")}]
federation_ca_file: ${roots}
${federates ? "federation_private_networks: [127.0.0.0/8]\n" : ""}`;
}
