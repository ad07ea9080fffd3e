// Synapse as a test peer: installed from the Python package index into a
// virtual environment in the cache, and run with SQLite in a directory that
// the caller throws away.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { cached, testbed } from "../process/cache.mjs";
import { debianPackage } from "../process/debian.mjs";
import { Process, run } from "../process/process.mjs";

const requirements = join(testbed, "synapse", "requirements.txt");

/** Synapse has delayed events (MSC4140), switched on below. */
export const delayedEvents = true;

async function environment() {
  return cached("synapse", [requirements], async (directory) => {
    await debianPackage("python3-venv", ["python3", "-c", "import ensurepip, venv"]);
    await run(["python3", "-m", "venv", directory]);
    await run([join(directory, "bin", "pip"), "install", "--quiet", "--requirement", requirements]);
  });
}

/** Installs what start needs, about a minute the first time. */
export async function prepare() {
  await environment();
}

/**
 * Starts a homeserver on 127.0.0.1 and returns its Process once it answers.
 * @param {{directory: string, port: number, serverName: string, secret: string, registrations: string[], additions?: string, maxDelay?: string, authorities?: string[],
 *   relay?: {uris: string[], secret: string}, log: string}} options
 *   directory: for keys, databases and configuration; secret: registration_shared_secret; registrations: files of
 *   application services; additions: what an operator of callserver adds to the configuration, in place of
 *   registrations; maxDelay: the longest delay of a delayed event, 24h unless it is given; authorities: files, one for
 *   each homeserver of this machine with which it federates
 */
export async function start({ directory, port, serverName, secret, registrations, additions, maxDelay, authorities = [], relay, log }) {
  const python = join(await environment(), "bin", "python");
  const file = join(directory, "homeserver.yaml");
  const logging = join(directory, "logging.yaml");
  await writeFile(file, configuration({ directory, port, serverName, secret, registrations, additions, maxDelay, authorities, relay, logging }));
  await writeFile(
    logging,
    "version: 1\nhandlers: {console: {class: logging.StreamHandler}}\nroot: {level: WARNING, handlers: [console]}\n",
  );
  await run([python, "-m", "synapse.app.homeserver", "--config-path", file, "--generate-keys"]);
  const server = new Process("synapse", [python, "-m", "synapse.app.homeserver", "--config-path", file], {
    log,
    cwd: directory,
  });
  await server.answers(`http://127.0.0.1:${port}/_matrix/client/versions`);
  return server;
}

function configuration({ directory, port, serverName, secret, registrations, additions, maxDelay, authorities, relay, logging }) {
  const generous = "{per_second: 1000, burst_count: 1000}";
  return `server_name: "${serverName}"
pid_file: "${directory}/synapse.pid"
log_config: "${logging}"
signing_key_path: "${directory}/signing.key"
media_store_path: "${directory}/media"
report_stats: false
trusted_key_servers: []
suppress_key_server_warning: true
bcrypt_rounds: 4
registration_shared_secret: "${secret}"
macaroon_secret_key: "${secret}"
form_secret: "${secret}"
federation_custom_ca_list: ${authorities.length > 0 ? JSON.stringify(authorities) : "null"}
federation_ip_range_blacklist: []
caches: {sync_response_cache_duration: 0s}
database: {name: sqlite3, args: {database: "${directory}/homeserver.db"}}
listeners:
  - port: ${port}
    bind_addresses: [127.0.0.1]
    type: http
    x_forwarded: true
    resources: [{names: [client, federation]}]
${additions ?? forCalls(registrations, generous, maxDelay)}
${relay ? `turn_uris: ${JSON.stringify(relay.uris)}\nturn_shared_secret: "${relay.secret}"\nturn_user_lifetime: 1h` : ""}
rc_registration: ${generous}
rc_room_creation: ${generous}
rc_login: {address: ${generous}, account: ${generous}, failed_attempts: ${generous}}
rc_joins: {local: ${generous}, remote: ${generous}}
rc_invites: {per_room: ${generous}, per_user: ${generous}, per_issuer: ${generous}}
`;
}

/** What calls need, without the limits of a server for strangers. */
function forCalls(registrations, generous, maxDelay = "24h") {
  return `max_event_delay_duration: ${maxDelay}
experimental_features:
  msc3266_enabled: true
  msc4222_enabled: true
  msc4354_enabled: true
  msc4502_enabled: true
  msc4512_enabled: true
app_service_config_files: ${JSON.stringify(registrations)}
rc_message: ${generous}
rc_delayed_event_mgmt: ${generous}`;
}
