// A Call is one user's Element Call in a browser page of its own, standalone or
// as a widget in a host page: it presses the buttons a person presses and reads
// what the person would see, with the probe's figures beside it.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { testbed } from "../process/cache.mjs";
import { debianPackage } from "../process/debian.mjs";
import { eventually } from "../process/eventually.mjs";
import { atEnd } from "../process/process.mjs";

/** What Debian's Chromium needs for media without devices, screens, sound or network. */
const flags = [
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream=fps=5",
  "--allow-loopback-in-peer-connection",
  "--autoplay-policy=no-user-gesture-required",
  "--disable-renderer-backgrounding",
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-background-networking",
  "--disable-gpu",
  "--disable-dev-shm-usage",
];

/**
 * Element Call's config.json for three users on two cores: pictures that these can code and decode, in two simulcast layers, and
 * no leaving only because the homeserver was too busy for a few seconds (by default 18 s without an answered keep-alive).
 */
export const busyMachine = {
  media_quality: {
    video: {
      max_resolution: 360,
      max_bitrate: 600_000,
      max_framerate: 5,
      simulcast_layers: [{ height: 180, bitrate: 150_000 }],
    },
    screen_share: { max_resolution: 720, max_bitrate: 800_000, max_framerate: 5 },
  },
  sync_disconnect_grace_period_ms: 60_000,
  matrix_rtc_session: { delayed_leave: { delay_ms: 90_000, restart_ms: 15_000, restart_timeout_ms: 10_000 } },
};

/** Milliseconds to wait for something that takes seconds on a free machine: three browsers share the cores with whatever else runs. */
export const PATIENCE_MS = 60_000;

/** How to start Debian's Chromium, or the one that CHROMIUM names, which is installed if need be. */
async function launchOptions() {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  await debianPackage("chromium", [executablePath, "--version"]);
  return {
    executablePath,
    // Ctrl-C is the runner's, which has more to stop than the browser.
    handleSIGINT: false,
    handleSIGTERM: false,
    handleSIGHUP: false,
    // The sandbox needs user namespaces, which root in a container does not have.
    args: process.getuid?.() === 0 ? [...flags, "--no-sandbox"] : flags,
  };
}

/** Starts the one browser that all calls share. */
export async function launch() {
  const browser = await chromium.launch(await launchOptions());
  atEnd(() => browser.close());
  return browser;
}

/**
 * Starts a browser that can be killed: `kill` ends all its processes at once, as kill -9 or a power cut would. It has no
 * camera, so that many calls fit on two cores.
 */
export async function launchMortal() {
  const options = await launchOptions();
  const args = options.args.map((flag) => flag.replace("media-stream=fps=5", "media-stream=device-count=0"));
  const server = await chromium.launchServer({ ...options, args });
  atEnd(() => server.close());
  const browser = await chromium.connect(server.wsEndpoint());
  return { browser, kill: () => server.kill(), close: () => server.close() };
}

export class Call {
  /**
   * @param {object} browser from launch
   * @param {object} user whose call it is
   * @param {{widget: boolean, logs: string}} options
   */
  static async create(browser, user, { widget, logs }) {
    // Few pixels to paint: without a graphics card the processor does it.
    const context = await browser.newContext({ viewport: { width: 800, height: 640 }, deviceScaleFactor: 0.5 });
    context.setDefaultTimeout(PATIENCE_MS);
    await context.addInitScript({ content: await readFile(join(testbed, "elementcall", "probe.js"), "utf8") });
    return new Call(context, await context.newPage(), user, widget, logs);
  }

  constructor(context, page, user, widget, logs) {
    Object.assign(this, { context, user, widget, logs, lines: [], admissions: [] });
    this.name = user.name;
    this.watch(page);
  }

  /** Takes a page for the call, the first or one in place of a page that crashed, and keeps its console from now on. */
  watch(page) {
    this.page = page;
    this.frame = undefined;
    page.on("response", (response) => this.#noteToken(response));
    page.on("console", (message) => this.#note(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => this.#note(`page error: ${error.message}`));
    page.on("requestfailed", (request) =>
      this.#note(`request failed: ${request.method()} ${request.url()} ${request.failure()?.errorText}`),
    );
  }

  #note(text) {
    this.lines.push(`${new Date().toISOString().slice(11, 23)} ${text}`);
  }

  /** Keeps what Element Call was given, as {service, asked, url, jwt}: a test looks at what it is worth later. */
  async #noteToken(response) {
    const request = response.request();
    const [, service] = /^(.*)\/(?:sfu\/get|get_token)$/.exec(request.url()) ?? [];
    if (!service || !response.ok() || request.method() !== "POST") return;
    const answer = await response.json().catch(() => undefined); // the page may be gone
    if (answer?.jwt) this.admissions.push({ service, asked: request.postDataJSON(), ...answer });
  }

  /** Opens the link and waits for Element Call's lobby. */
  async open(link) {
    await this.page.goto(link);
    this.frame = await eventually(`${this.name}: Element Call's frame`, PATIENCE_MS, async () => {
      const wanted = this.widget ? "/widget/call/" : "/room/";
      return this.page.frames().find((frame) => new URL(frame.url(), "http://none").pathname === wanted);
    });
    await this.#button("lobby_joinCall").waitFor();
    this.device = await this.page.evaluate(() => JSON.parse(localStorage.getItem("matrix-auth-store")).device_id);
  }

  #button(testid) {
    return this.frame.getByTestId(testid).filter({ visible: true }).first();
  }

  /** Presses Join and waits until the call's controls are there. */
  async join() {
    await this.#button("lobby_joinCall").click();
    await this.#button("incall_leave").waitFor();
  }

  /** What Element Call says in place of the call when it has given up; undefined otherwise. */
  async error() {
    const text = await this.frame?.evaluate(() => document.body.innerText).catch(() => ""); // the page may be gone
    return /Error Code: \w+/.exec(text ?? "")?.[0];
  }

  toggleMicrophone() {
    return this.#button("incall_mute").click();
  }

  toggleCamera() {
    return this.#button("incall_videomute").click();
  }

  toggleScreenShare() {
    return this.#button("incall_screenshare").click();
  }

  leave() {
    return this.#button("incall_leave").click();
  }

  /** When Join was pressed and when the first remote picture was shown, in ms since 1970. */
  marks() {
    return this.frame.evaluate(() => window.callProbe.marks);
  }

  tiles() {
    return this.frame.evaluate(() => window.callProbe.tiles());
  }

  inbound() {
    return this.frame.evaluate(() => window.callProbe.inbound());
  }

  /** When bytes of each participant's tracks last arrived here: sid -> ms since 1970. The first call starts the watch. */
  arrivals() {
    return this.frame.evaluate(() => window.callProbe.arrivals());
  }

  async screenshot(label) {
    await this.page.screenshot({ path: join(this.logs, `${label}-${this.name}.png`) });
  }

  /** How many senders and receivers have their frames transformed, which is how a browser encrypts them. */
  transforms() {
    return this.frame.evaluate(() => window.callProbe.transforms());
  }

  /** Writes a screenshot, the console and the peer connections, to find out why, and returns the gist. Never throws. */
  async report(label) {
    const base = join(this.logs, `${label}-failed-${this.name}`);
    const tell = (error) => this.#note(`report: ${error.message}`);
    await this.screenshot(`${label}-failed`).catch(tell);
    const seen = await (this.frame ?? this.page)
      .evaluate(async () => ({
        screen: document.body.innerText.replaceAll(/\s+/g, " ").slice(0, 200),
        tiles: window.callProbe.tiles(),
        inbound: await window.callProbe.inbound(),
        connections: window.callProbe.connections(),
      }))
      .catch(tell);
    await writeFile(`${base}.json`, JSON.stringify(seen ?? null, null, 1));
    await writeFile(`${base}.console.log`, `${this.lines.join("\n")}\n`);
    const connections = seen?.connections.map(({ connection, ice }) => `${connection}/${ice}`);
    const streams = seen?.inbound.map(({ kind, owner, packets }) => `${kind} of ${owner}: ${packets}`);
    const complaints = this.lines.filter((line) => / (error|warning|page error): /.test(line)).slice(-4);
    return [
      `${this.name} shows "${seen?.screen ?? "nothing"}", connections: ${connections?.join() || "none"}, receives: ${streams?.join() || "nothing"}`,
      ...complaints.map((line) => `  ${line.slice(0, 200)}`),
    ].join("\n");
  }

  /** Leaves Element Call without a word, as by closing its tab; open comes back to it. */
  async quit() {
    await this.page.goto("about:blank");
  }

  async close() {
    await this.context.close();
  }
}
