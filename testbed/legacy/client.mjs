// A LegacyClient is one user's matrix-js-sdk with its 1:1 calls in a browser
// page of its own: it places, answers and ends calls as a person would, and
// says what that person would hear and see.
import { createReadStream } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";

import { cached, testbed } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { atEnd } from "../process/process.mjs";

const source = join(testbed, "legacy", "page.js");

/** Milliseconds to wait for something that takes seconds on a free machine. */
export const PATIENCE_MS = 40_000;

let site;

/** The origin of a user's page: one server for all, which ends with the runner. A page from anywhere else may not reach this machine. */
async function origin(user) {
  site ??= serve();
  return `http://${user.name}.legacy.localhost:${(await site).address().port}`; // a secure context, so that there are cameras
}

async function serve() {
  const directory = await cached("legacy-page", [join(testbed, "package-lock.json"), source], async (target) => {
    const { build } = await import("esbuild");
    await build({
      entryPoints: [source],
      outfile: join(target, "page.js"),
      bundle: true,
      format: "esm",
      platform: "browser",
      target: "chrome120",
      define: { global: "globalThis" },
      logLevel: "warning",
    });
  });
  const script = await readFile(join(directory, "page.js"));
  const server = createServer((request, response) => {
    const wasm = /^\/pkg\/(\w+\.wasm)$/.exec(request.url)?.[1]; // of the encryption
    if (wasm) {
      response.writeHead(200, { "content-type": "application/wasm" });
      return createReadStream(join(testbed, "node_modules", "@matrix-org", "matrix-sdk-crypto-wasm", "pkg", wasm)).pipe(response);
    }
    const type = { "/": "text/html", "/page.js": "text/javascript" }[request.url];
    if (!type) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": type });
    response.end(request.url === "/" ? "<!doctype html><body></body><script type=module src=page.js></script>" : script);
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  atEnd(() => {
    server.closeAllConnections();
    server.close();
  });
  return server;
}

export class LegacyClient {
  /**
   * Opens the page in a profile of its own, with a device of its own.
   * @param {object} browser from elementcall/call.mjs's launch
   * @param {object} user of homeservers/homeserver.mjs
   * @param {{relay?: boolean, keys?: boolean, logs?: string}} options relay: media goes through the homeserver's TURN servers only; keys: it
   *   takes part in encrypted rooms
   */
  static async open(browser, user, { relay = false, keys = false, logs } = {}) {
    const context = await browser.newContext({ viewport: { width: 320, height: 240 } });
    context.setDefaultTimeout(PATIENCE_MS);
    const client = new LegacyClient(context, await context.newPage(), user, logs);
    await client.page.goto(`${await origin(user)}/`);
    // A device is a party of calls: one that two users share by name, as Dendrite has it after registering, answers nobody.
    const { device_id, access_token } = await user.request("POST", "v3/login", {
      type: "m.login.password",
      identifier: { type: "m.id.user", user: user.id },
      password: user.password,
    });
    const login = { baseUrl: user.homeserver.url, userId: user.id, deviceId: device_id, accessToken: access_token, relay, keys };
    await client.page.evaluate((options) => globalThis.legacy.start(options), login).catch(async (error) => {
      throw new Error(`${user.name}'s page does not start: ${error.message}\n${client.lines.slice(-12).join("\n")}`);
    });
    return client;
  }

  constructor(context, page, user, logs) {
    Object.assign(this, { context, page, user, logs, lines: [] });
    page.on("console", (message) => this.lines.push(`${new Date().toISOString().slice(11, 23)} ${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => this.lines.push(`page error: ${error.message}`));
  }

  #do(what, argument) {
    return this.page.evaluate(([name, value]) => globalThis.legacy[name](value), [what, argument]);
  }

  /** @param {{room: string, video?: boolean, invitee?: string, id?: string, lifetime?: number}} options as in page.js */
  place(options) {
    return this.#do("place", options);
  }

  answer() {
    return this.#do("answer");
  }

  reject() {
    return this.#do("reject");
  }

  /** Answers that the person is busy. */
  turnAway() {
    return this.#do("turnAway");
  }

  hangup() {
    return this.#do("hangup");
  }

  muteAudio(on) {
    return this.#do("muteAudio", on);
  }

  muteVideo(on) {
    return this.#do("muteVideo", on);
  }

  hold(on) {
    return this.#do("hold", on);
  }

  restartICE() {
    return this.#do("restartICE");
  }

  /** Ends every call of this page. */
  hangupAll() {
    return this.#do("hangupAll");
  }

  /** @param {number} back of how many calls ago */
  state(back = 0) {
    return this.#do("state", back);
  }

  /** Holds back what the homeserver tells this page, from its next request on; returns what lets it through again. */
  async deafen() {
    const syncs = /\/sync\?/;
    let hear;
    const over = new Promise((resolve) => (hear = resolve));
    await this.page.route(syncs, (route) => over.then(() => route.continue()).catch(() => {})); // the page may be gone
    return async () => {
      hear();
      await this.page.unroute(syncs);
    };
  }

  media() {
    return this.#do("media");
  }

  colour() {
    return this.#do("colour");
  }

  /** Waits until the latest call is as wanted: a state's name, or a function of what `state` says. */
  becomes(wanted, what = wanted) {
    const fits = typeof wanted === "function" ? wanted : ({ state }) => state === wanted;
    return eventually(`${this.user.name}'s call: ${what}`, PATIENCE_MS, async (seen) => {
      const state = await this.state();
      seen(state);
      return state && fits(state) ? state : undefined;
    });
  }

  /** Waits until sound and pictures arrive from now on: their counters rise. */
  async receives({ audio = true, video = true } = {}) {
    const before = await this.media();
    return eventually(`${this.user.name} hears and sees`, PATIENCE_MS, async (seen) => {
      const now = await this.media();
      seen(now);
      const heard = !audio || now.audio.energy > before.audio.energy;
      const saw = !video || now.video.frames > before.video.frames;
      return heard && saw ? now : undefined;
    });
  }

  /** Writes the console to the logs, to find out why. */
  async report(label) {
    if (this.logs) await writeFile(join(this.logs, `${label}-${this.user.name}.console.log`), `${this.lines.join("\n")}\n`);
  }

  close() {
    return this.context.close();
  }
}
