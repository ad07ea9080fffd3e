// What a test stands on that needs a homeserver and its own callservers, without a browser.
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { goProgram, outputs } from "../process/cache.mjs";
import { freePorts, Process } from "../process/process.mjs";
import { Homeserver, peer } from "./homeserver.mjs";

/**
 * A homeserver of a kind that has its ports and waits to be started, an empty directory for logs, named after the test and
 * the kind, and one for files, which whoever asked removes.
 */
export async function ground(kind, test) {
  await (await peer(kind)).prepare();
  const logs = join(outputs, `${test}-${kind}`);
  await rm(logs, { recursive: true, force: true });
  await mkdir(logs, { recursive: true });
  const directory = await mkdtemp(join(tmpdir(), "callserver-testbed-"));
  const homeserver = new Homeserver(kind);
  await homeserver.reserve();
  return { homeserver, directory, logs };
}

/**
 * Starts a callserver that has some of the homeserver's registrations, and returns it with its URL once it answers.
 * @param {object} options ports: of HTTP, the operator and media, where they were told to somebody already; more: configuration; relay: that of turn;
 *   data: file of what survives a restart; known: it is told its URL, by which members of calls name it
 */
export async function serve({ homeserver, directory, logs }, name, registrations, { ports, more = "", relay = "{enabled: false}", data = "off", known = false } = {}) {
  const [http, admin, udp, tcp] = ports ?? (await freePorts(4));
  const file = join(directory, `${name}.yaml`);
  const url = `http://127.0.0.1:${http}`;
  await writeFile(
    file,
    `http: {listen: "127.0.0.1:${http}"${known ? `, public_url: "${url}"` : ""}}
admin: {listen: "127.0.0.1:${admin}"}
media: {udp_port: ${udp}, tcp_port: ${tcp}, advertise: [127.0.0.1]}
turn: ${relay}
keys: {test: ${randomBytes(24).toString("hex")}}
data: {file: ${data}}
homeservers:
  - server_name: ${homeserver.name}
    client_api: ${homeserver.url}
    registration: [${registrations.join(", ")}]
federation_ca_file: ${homeserver.authority}
${more}`,
  );
  const program = process.env.CALLSERVER ?? (await goProgram("cmd/callserver"));
  const callserver = new Process("callserver", [program, "serve", "--config", file], { log: join(logs, `${name}.log`) });
  await callserver.answers(`${url}/healthz`, 20_000);
  return { callserver, url };
}
