// A Homeserver is one running Matrix homeserver of either kind with the front
// before it: users, rooms and state by the client-server API. It knows nothing
// of calls or of callserver, except that the front sends some paths there.
import { createHmac, randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { goProgram } from "../process/cache.mjs";
import { freePorts, Process, run } from "../process/process.mjs";

const kinds = { dendrite: () => import("../dendrite/dendrite.mjs"), synapse: () => import("../synapse/synapse.mjs") };

/** The peer of that name, with `prepare`, `start` and what it can do. */
export async function peer(kind) {
  const load = kinds[kind];
  if (!load) throw new Error(`HOMESERVER=${kind} is not known; use one of ${Object.keys(kinds).join(", ")}`);
  return load();
}

/** Why a request to the homeserver was refused. */
export class MatrixError extends Error {
  constructor(what, status, body) {
    super(`${what}: ${status} ${JSON.stringify(body)}`);
    this.status = status;
    this.errcode = body.errcode;
  }
}

/** Sends one request and returns the JSON answer; throws MatrixError for any status but 200. */
export async function request(method, url, { token, body } = {}) {
  const response = await fetch(url, {
    method,
    headers: {
      ...(token && { authorization: `Bearer ${token}` }),
      ...(body && { "content-type": "application/json" }),
    },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = { errcode: "not JSON", error: text.slice(0, 200) };
  }
  if (response.status !== 200) throw new MatrixError(`${method} ${new URL(url).pathname}`, response.status, answer);
  return answer;
}

/** A user's login: one device. */
export class User {
  constructor(homeserver, name, password, { user_id, device_id, access_token }) {
    Object.assign(this, { homeserver, name, password, id: user_id, device: device_id, token: access_token });
  }

  request(method, path, body) {
    return request(method, `${this.homeserver.url}/_matrix/client/${path}`, { token: this.token, body });
  }

  /** Makes a room and returns its id; the others are invited, and anyone in it may take part in calls. */
  async createRoom({ name, encrypted, invite = [] }) {
    const encryption = {
      type: "m.room.encryption",
      state_key: "",
      content: { algorithm: "m.megolm.v1.aes-sha2" },
    };
    const { room_id } = await this.request("POST", "v3/createRoom", {
      name,
      preset: "private_chat",
      invite: invite.map((user) => user.id),
      initial_state: encrypted ? [encryption] : [],
      power_level_content_override: { events: { "org.matrix.msc3401.call.member": 0 } },
    });
    return room_id;
  }

  join(room) {
    return this.request("POST", `v3/join/${encodeURIComponent(room)}`, {});
  }

  leave(room) {
    return this.request("POST", `v3/rooms/${encodeURIComponent(room)}/leave`, {});
  }

  /** Does to another user what their power allows: invite, kick, ban or unban. */
  act(what, user, room) {
    return this.request("POST", `v3/rooms/${encodeURIComponent(room)}/${what}`, { user_id: user.id });
  }

  /** Returns the room's state events of one type. */
  async state(room, type) {
    const events = await this.request("GET", `v3/rooms/${encodeURIComponent(room)}/state`);
    return events.filter((event) => event.type === type);
  }

  /** Sets a room's state of a type that has one event. */
  setState(room, type, content) {
    return this.request("PUT", `v3/rooms/${encodeURIComponent(room)}/state/${type}/`, content);
  }

  /** Returns the room's sticky events (MSC4354) of one type, in the order in which they were sent. */
  async sticky(room, type) {
    const filter = JSON.stringify({ room: { rooms: [room], timeline: { limit: 1 } }, presence: { types: [] } });
    const { rooms } = await this.request("GET", `v3/sync?filter=${encodeURIComponent(filter)}`);
    const { msc4354_sticky: sticky, timeline } = rooms?.join?.[room] ?? {};
    // What is in the timeline is not repeated among the sticky ones.
    const events = [...(sticky?.events ?? []), ...(timeline?.events ?? []).filter((event) => event.msc4354_sticky)];
    return events.filter((event) => event.type === type).sort((a, b) => a.origin_server_ts - b.origin_server_ts);
  }

  /** Asks for an OpenID token, which a service checks at the homeserver by federation. */
  openID() {
    return this.request("POST", `v3/user/${encodeURIComponent(this.id)}/openid/request_token`, {});
  }
}

export class Homeserver {
  #secret = randomBytes(16).toString("hex");
  #processes = [];
  #options;

  /**
   * @param {string} kind dendrite or synapse
   * @param {string} host what the server name says before the port: localhost, or 127.0.0.1 where a server ACL is to tell
   *   two of them apart, which looks at no port
   */
  constructor(kind, host = "localhost") {
    Object.assign(this, { kind, host });
  }

  /** Chooses the ports, so that callserver's configuration can name the server before it runs. */
  async reserve() {
    const [server, plain, secure] = await freePorts(3);
    this.ports = { server, plain, secure };
    /** The server name has a port, so its resolution needs neither well-known nor SRV records. */
    this.name = `${this.host}:${secure}`;
    /** The base URL for clients. */
    this.url = `http://127.0.0.1:${plain}`;
  }

  /**
   * Starts the front and the homeserver; callserver need not run yet.
   * @param {{directory: string, logs: string, callserver: string, registrations?: string[], additions?: string, maxDelay?: string,
   *   relay?: {uris: string[], secret: string}}} options
   *   callserver: its base URL; registrations: files of application services; additions: lines of configuration in their place;
   *   maxDelay: the longest delay of a delayed event; relay: TURN for the users' own calls
   */
  async start({ directory, logs, callserver, registrations, additions, maxDelay, relay }) {
    await this.startFront({ directory, logs, callserver });
    await this.startServer({ directory, logs, registrations, additions, maxDelay, relay });
  }

  /**
   * Starts the front alone; its authority is in the file that `authority` names from then on. With handedOn the homeserver
   * gets the requests for tokens below its own paths, to hand them on itself (MSC4512).
   */
  async startFront({ directory, logs, callserver, handedOn = false }) {
    this.authority = join(directory, "ca.pem");
    const front = new Process(
      "front",
      [
        await goProgram("testbed/front"),
        ...["-homeserver", `http://127.0.0.1:${this.ports.server}`, "-callserver", callserver],
        ...["-http", `127.0.0.1:${this.ports.plain}`, "-https", `127.0.0.1:${this.ports.secure}`],
        ...["-ca", this.authority, `-handed-on=${handedOn}`],
      ],
      { log: join(logs, "front.log") },
    );
    this.#processes.push(front);
    await front.line(/^ready /);
  }

  /**
   * Starts the homeserver behind its front.
   * @param {{directory: string, logs: string, registrations?: string[], additions?: string, maxDelay?: string, authorities?: string[]}} options
   *   authorities: files, one for each homeserver of this machine with which it federates
   */
  async startServer({ directory, logs, registrations = [], additions, maxDelay, authorities, relay }) {
    const home = join(directory, this.kind);
    await mkdir(home, { recursive: true });
    this.#options = {
      directory: home,
      port: this.ports.server,
      serverName: this.name,
      secret: this.#secret,
      registrations,
      additions,
      maxDelay,
      authorities,
      relay,
      log: join(logs, `${this.kind}.log`),
    };
    await this.resume();
  }

  /**
   * Writes the registrations that callserver gives to operators, into a directory, and returns their files.
   * @param {string} directory
   * @param {string} url receives the events of the narrow one
   * @param {{proxy?: boolean}} options proxy: the homeserver hands requests on there (MSC4512)
   */
  async registrations(directory, url, { proxy = false } = {}) {
    const program = await goProgram("testbed/registrations");
    await run([program, "-server", this.name, "-url", url, "-directory", directory, `-proxy=${proxy}`]);
    return { narrow: join(directory, "narrow.yaml"), wide: join(directory, "wide.yaml") };
  }

  /** Brings the bot of a registration into a room to which a user invites it. */
  async joinSender(file, user, room) {
    const text = await readFile(file, "utf8");
    const value = (key) => new RegExp(`^${key}: (.*)$`, "m").exec(text)[1];
    const sender = `@_callserver:${this.name}`;
    const account = { type: "m.login.application_service", username: "_callserver", inhibit_login: true };
    await request("POST", `${this.url}/_matrix/client/v3/register`, { token: value("as_token"), body: account }).catch((error) => {
      if (error.errcode !== "M_USER_IN_USE") throw error;
    });
    const at = `v3/rooms/${encodeURIComponent(room)}`;
    await user.request("POST", `${at}/invite`, { user_id: sender });
    const url = `${this.url}/_matrix/client/${at}/join?user_id=${encodeURIComponent(sender)}`;
    await request("POST", url, { token: value("as_token"), body: {} });
  }

  /** Stops the homeserver itself; its front stays and answers 502. */
  async pause() {
    await this.#processes.at(-1).stop();
  }

  /** Starts the homeserver itself, with the data that it had. */
  async resume() {
    const implementation = await peer(this.kind);
    this.#processes.push(await implementation.start(this.#options));
  }

  /** Registers a user by the shared secret, which both kinds take, and returns the login. */
  async register(name, password) {
    const url = `http://127.0.0.1:${this.ports.server}/_synapse/admin/v1/register`;
    const { nonce } = await request("GET", url);
    const mac = createHmac("sha1", this.#secret)
      .update([nonce, name, password, "notadmin"].join("\0"))
      .digest("hex");
    const body = { nonce, username: name, displayname: name, password, admin: false, mac };
    return new User(this, name, password, await request("POST", url, { body }));
  }

  async stop() {
    for (const process of this.#processes.toReversed()) await process.stop();
  }
}
