// Network namespaces of a test's own, without names: each lives as long as the process that holds it, so nothing is left behind.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, writeFile } from "node:fs/promises";
import { argv, env, execPath } from "node:process";

import { run } from "./process.mjs";

const mark = "CALLSERVER_TESTBED_INSIDE";

// What a shell does first in a new namespace. Addresses are in use at once, without a search for duplicates: it would end a second or two after a
// cable is laid, and browsers take that for another network and give up what they load (ERR_NETWORK_CHANGED).
const prepare = `for search in /proc/sys/net/ipv6/conf/all/accept_dad /proc/sys/net/ipv6/conf/default/accept_dad; do
  [ ! -w $search ] || echo 0 >$search
done
ip link set lo up`;

/**
 * Runs this program again in a network namespace of its own and ends with its exit status; returns there. The network is loopback
 * and what the commands of a shell add. Needs root: throws the reason where namespaces cannot be made.
 */
export async function enterNamespace(commands = "true") {
  if (env[mark]) return;
  if (process.getuid() !== 0) throw new Error("network namespaces need root: run this as root");
  const network = `${prepare} && ${commands}`;
  await run(["unshare", "--net", "sh", "-c", network]);
  const again = spawn("unshare", ["--net", "sh", "-c", `${network} && exec "$0" "$@"`, execPath, ...process.execArgv, ...argv.slice(1)],
    { stdio: "inherit", env: { ...env, [mark]: "1" } });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => again.kill(signal)); // it cleans up, then both end
  const [code] = await once(again, "exit");
  process.exit(code ?? 1);
}

/** A network namespace. The one of this process is `new Namespace()`; others are made by open. */
export class Namespace {
  #holder;

  /** @param {import("node:child_process").ChildProcess} holder a process in the namespace; none: it is ours */
  constructor(holder) {
    this.#holder = holder;
    this.pid = holder?.pid ?? process.pid;
  }

  /** Makes a namespace with loopback up. Close it, or end: it goes either way. */
  static async open() {
    // cat ends when its input does, however this process ends.
    const holder = spawn("unshare", ["--net", "sh", "-c", `${prepare} && echo up && exec cat`], { stdio: ["pipe", "pipe", "inherit"] });
    const [said] = await Promise.race([once(holder.stdout, "data"), once(holder, "exit").then(() => [])]);
    if (!said) throw new Error("no network namespace: unshare --net failed");
    return new Namespace(holder);
  }

  /** What runs a program in here, as the beginning of a command line. */
  get enter() {
    return this.#holder ? ["nsenter", `--net=/proc/${this.pid}/ns/net`, "--"] : [];
  }

  /** Runs a program in here to its end and returns its output. */
  run(command, options) {
    return run([...this.enter, ...command], options);
  }

  /** Runs iproute2: one command a line. */
  ip(lines) {
    return this.run(["ip", "-batch", "-"], { input: `${lines.trim()}\n` });
  }

  /** Sets kernel parameters below net/, `{ "ipv4/ip_forward": 1 }`. */
  async sysctl(values) {
    for (const [name, value] of Object.entries(values)) await this.run(["sh", "-c", `echo ${value} > /proc/sys/net/${name}`]);
  }

  /** Replaces all rules of nftables by these. */
  nft(rules) {
    return this.run(["nft", "-f", "-"], { input: `flush ruleset\n${rules}\n` });
  }

  /** Writes a program at path that starts another one in here, for callers that take the path of a program only. */
  async wrap(program, path) {
    await writeFile(path, `#!/bin/sh\nexec ${this.enter.join(" ")} "${program}" "$@"\n`);
    await chmod(path, 0o755);
    return path;
  }

  /** Ends the namespace once its other processes have ended. */
  async close() {
    if (!this.#holder || this.#holder.exitCode !== null || this.#holder.signalCode !== null) return;
    const gone = once(this.#holder, "exit");
    this.#holder.stdin.end();
    await gone;
  }
}

/**
 * Lays a cable: a pair of devices, one end in each namespace, both up. Addresses are with their prefix length.
 * @param {{namespace: Namespace, device: string, addresses?: string[], mtu?: number}} one
 * @param {{namespace: Namespace, device: string, addresses?: string[], mtu?: number}} other
 */
export async function cable(one, other) {
  await one.namespace.run(["ip", "link", "add", one.device, "type", "veth", "peer", "name", other.device, "netns", String(other.namespace.pid)]);
  for (const { namespace, device, addresses = [], mtu = 1500 } of [one, other]) {
    await namespace.ip([
      ...addresses.map((address) => `address add ${address} dev ${device} ${address.includes(":") ? "nodad" : ""}`),
      `link set ${device} mtu ${mtu} up`,
    ].join("\n"));
  }
}
