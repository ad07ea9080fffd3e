// A Process is one program that the testbed started: its output goes to a log
// file, and it is stopped by its process id and waited for, at the latest by
// stopAll when the runner ends. It never ends anything that it did not start.
import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { createServer } from "node:net";

/** Milliseconds between a polite stop and a kill. */
const STOP_GRACE_MS = 5_000;

const running = new Set();
const closers = new Set();
let closing = false;

/** Has stopAll run this after the programs ended; for what must not outlive the runner, whichever way it ends. */
export function atEnd(close) {
  closers.add(close);
}

/** Stops every Process in the reverse order of their start, lets none start any more, and runs what atEnd was given. */
export async function stopAll() {
  closing = true;
  for (const process of [...running].reverse()) await process.stop();
  for (const close of [...closers].reverse()) await close();
}

/** Ends the runner in order, also when it is told to end by a signal: a suite that took too long, or Ctrl-C. */
export function stopOnSignals() {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.once(signal, async () => {
      console.error(`stopped by ${signal}`);
      await stopAll();
      process.exit(1);
    });
  }
}

export class Process {
  /**
   * Starts a program.
   * @param {string} name what the logs and errors call it
   * @param {string[]} command program and arguments
   * @param {{log: string, env?: object, cwd?: string}} options log: file that receives both outputs
   */
  constructor(name, command, { log, env = {}, cwd }) {
    if (closing) throw new Error(`${name} is not started any more: the runner is ending`);
    this.name = name;
    this.log = log;
    this.lines = [];
    this.watchers = new Set();
    const file = createWriteStream(log, { flags: "a" });
    // detached: Ctrl-C in the terminal reaches only the runner, which then stops its children in order.
    this.child = spawn(command[0], command.slice(1), {
      cwd,
      env: { ...process.env, ...env },
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    running.add(this);
    this.exited = new Promise((resolve) => {
      this.child.once("error", (error) => this.#ended(`cannot start: ${error.message}`, resolve));
      this.child.once("close", (code, signal) => this.#ended(`ended with ${signal ?? `code ${code}`}`, resolve));
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.pipe(file, { end: false });
      this.#readLines(stream);
    }
  }

  #ended(how, resolve) {
    this.end = how;
    running.delete(this);
    for (const watcher of this.watchers) watcher(undefined);
    resolve(how);
  }

  #readLines(stream) {
    let rest = "";
    stream.setEncoding("utf8");
    stream.on("data", (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        this.lines.push(line);
        if (this.lines.length > 200) this.lines.shift(); // the tail is enough for an error message
        for (const watcher of this.watchers) watcher(line);
      }
    });
  }

  /** Waits for a line of output that matches, and returns the match. */
  line(pattern, timeoutMs = 30_000) {
    for (const line of this.lines) {
      const match = pattern.exec(line);
      if (match) return Promise.resolve(match);
    }
    return new Promise((resolve, reject) => {
      const done = (settle, value) => {
        this.watchers.delete(watcher);
        clearTimeout(timer);
        settle(value);
      };
      const watcher = (line) => {
        if (line === undefined) return done(reject, this.#failure(this.end));
        const match = pattern.exec(line);
        if (match) done(resolve, match);
      };
      const timer = setTimeout(() => done(reject, this.#failure(`did not print ${pattern} in ${timeoutMs} ms`)), timeoutMs);
      if (this.end) return done(reject, this.#failure(this.end));
      this.watchers.add(watcher);
    });
  }

  /** Waits until the URL answers with a status below 500. */
  async answers(url, timeoutMs = 60_000) {
    const deadline = Date.now() + timeoutMs;
    while (!this.end) {
      try {
        const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
        await response.arrayBuffer();
        if (response.status < 500) return;
      } catch {
        // Not listening yet.
      }
      if (Date.now() > deadline) throw this.#failure(`did not answer ${url} in ${timeoutMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw this.#failure(this.end);
  }

  #failure(what) {
    return new Error(`${this.name} ${what}\n  log: ${this.log}\n  ${this.lines.slice(-8).join("\n  ")}`);
  }

  /** Stops the program and returns when it has ended. Stopping twice is fine. */
  async stop() {
    if (this.end) return;
    this.#signal("SIGTERM");
    const kill = setTimeout(() => this.#signal("SIGKILL"), STOP_GRACE_MS);
    await this.exited;
    clearTimeout(kill);
  }

  /** Ends the program without giving it a chance to do anything (kill -9), and returns when it has ended. */
  async kill() {
    if (this.end) return;
    this.#signal("SIGKILL");
    await this.exited;
  }

  #signal(signal) {
    try {
      process.kill(this.child.pid, signal);
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
  }
}

/** Runs a program to its end and returns its output; throws with the tail of the output when it fails. */
export function run(command, { cwd, env = {}, input } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command[0], command.slice(1), { cwd, env: { ...process.env, ...env } });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (output += data));
    child.on("error", (error) => reject(new Error(`${command[0]}: ${error.message}`)));
    child.on("close", (code) => {
      if (code === 0) return resolve(output);
      reject(new Error(`${command.join(" ")} ended with code ${code}\n${output.split("\n").slice(-25).join("\n")}`));
    });
    child.stdin.on("error", () => {}); // it ended without reading: its code says whether that is right
    child.stdin.end(input ?? "");
  });
}

const given = new Set();

/**
 * Returns ports that are free now, for TCP and UDP, at every address. None is returned twice, and none is one of those that the kernel gives to whoever
 * connects (32768 and up on Linux): they are free until their server starts, and when it starts again.
 */
export async function freePorts(count) {
  const ports = [];
  while (ports.length < count) {
    const port = 11_000 + randomInt(9_000); // browsers refuse 10080, and relays have 20000 to 29999
    if (!given.has(port) && (await isFree(port))) {
      given.add(port);
      ports.push(port);
    }
  }
  return ports;
}

async function isFree(port) {
  for (const hold of [() => createServer().listen(port), () => createSocket("udp4").bind(port)]) {
    const held = hold();
    try {
      await once(held, "listening");
    } catch {
      return false;
    }
    await once(held.close(), "close");
  }
  return true;
}
