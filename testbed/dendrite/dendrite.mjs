// Dendrite as a test peer: built from its Go module in a module of its own, so
// that its licence and its dependencies stay out of callserver's, and run with
// SQLite files in a directory that the caller throws away.
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { cached, testbed } from "../process/cache.mjs";
import { debianPackage } from "../process/debian.mjs";
import { Process, run } from "../process/process.mjs";

const module = join(testbed, "dendrite");
const commands = ["dendrite", "generate-keys"].map((name) => `github.com/element-hq/dendrite/cmd/${name}`);

/** Dendrite sends delayed events at once and has no sticky events (MSC4140, MSC4354). */
export const delayedEvents = false;

// With cgo, as Dendrite's own Dockerfile has it. Without it, the driver of SQLite (modernc.org/sqlite 1.34.5) loses a statement when a client
// takes back a request whose answer is being computed, as every page does that is closed during its /sync: the database stays locked, a commit
// fails after ten seconds, and from then on most that writes fails with "cannot start a transaction within a transaction".
async function programs() {
  return cached("dendrite-cgo", [join(module, "go.mod"), join(module, "go.sum")], async (directory) => {
    await debianPackage("gcc", ["gcc", "--version"]);
    await debianPackage("libc6-dev", ["gcc", "-fsyntax-only", "-include", "stdlib.h", "-x", "c", "/dev/null"]);
    await run(["go", "build", "-o", `${directory}/`, ...commands], { cwd: module, env: { CGO_ENABLED: "1" } });
  });
}

/** Builds what start needs, some minutes the first time. */
export async function prepare() {
  await programs();
}

/**
 * Starts a homeserver on 127.0.0.1 and returns its Process once it answers.
 * @param {{directory: string, port: number, serverName: string, secret: string, registrations: string[], additions?: string, authorities?: string[],
 *   relay?: {uris: string[], secret: string}, log: string}} options
 *   directory: for keys, databases and configuration; secret: registration_shared_secret; registrations: files of
 *   application services; additions: what an operator of callserver adds to the configuration, in place of registrations;
 *   authorities: files, one for each homeserver of this machine with which it federates
 */
export async function start({ directory, port, serverName, secret, registrations, additions, authorities = [], relay, log }) {
  const bin = await programs();
  const key = join(directory, "matrix_key.pem");
  if (!existsSync(key)) await run([join(bin, "generate-keys"), "--private-key", key]);
  const file = join(directory, "dendrite.yaml");
  await writeFile(file, configuration({ directory, serverName, secret, registrations, additions, relay }));
  const roots = join(directory, "authorities.pem");
  await writeFile(roots, (await Promise.all(authorities.map((file) => readFile(file, "utf8")))).join(""));
  const server = new Process(
    "dendrite",
    [join(bin, "dendrite"), "--config", file, "--http-bind-address", `127.0.0.1:${port}`],
    { log, cwd: directory, env: { SSL_CERT_FILE: roots } },
  );
  await server.answers(`http://127.0.0.1:${port}/_matrix/client/versions`);
  return server;
}

function configuration({ directory, serverName, secret, registrations, additions, relay }) {
  const database = (name) => `{connection_string: "file:${directory}/${name}.db"}`;
  return `version: 2
global:
  server_name: "${serverName}"
  private_key: "${directory}/matrix_key.pem"
  jetstream: {in_memory: true, storage_path: "${directory}"}
  presence: {enable_inbound: false, enable_outbound: false}
client_api:
  registration_disabled: true
  guests_disabled: true
  registration_shared_secret: "${secret}"
  rate_limiting: {enabled: false}
${relay ? `  turn: {turn_user_lifetime: 1h, turn_shared_secret: "${relay.secret}", turn_uris: ${JSON.stringify(relay.uris)}}` : ""}
${additions ?? `app_service_api:\n  config_files: ${JSON.stringify(registrations)}`}
  database: ${database("appservice")}
federation_api: {database: ${database("federation")}, disable_tls_validation: false, deny_networks: []}
key_server: {database: ${database("keyserver")}}
media_api: {base_path: "${directory}/media", database: ${database("media")}}
mscs: {mscs: [], database: ${database("mscs")}}
relay_api: {database: ${database("relay")}}
room_server: {database: ${database("roomserver")}}
sync_api: {database: ${database("sync")}}
user_api:
  bcrypt_cost: 4
  account_database: ${database("account")}
  device_database: ${database("device")}
logging: [{type: std, level: warn}]
`;
}
