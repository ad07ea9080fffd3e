// A proxy is an operator's reverse proxy in front of a homeserver and of
// callserver: nginx or Caddy with the lines that callserver init printed, as
// they were printed. What the operator has already, the site of the homeserver
// and a certificate, is written here.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";

import { debianPackage, debianProgram } from "../process/debian.mjs";
import { Process, run } from "../process/process.mjs";

const programs = {
  nginx: () => debianProgram("nginx", "usr/sbin/nginx", ["-v"]),
  caddy: () => debianProgram("caddy", "usr/bin/caddy", ["version"]),
};

/** Fetches what startProxy needs. */
export async function prepareProxy(kind) {
  await programs[kind]();
  if (kind === "nginx") await debianPackage("openssl", ["openssl", "version"]);
}

/**
 * Starts a proxy and returns its Process, with the certificate of its authority as `ca`, once it takes connections.
 * @param {string} kind nginx or caddy
 * @param {{directory: string, log: string, site: string, lines: string, matrix: string, homeserver: string}} options
 *   site: the printed site of callserver; lines: those for the homeserver's site; matrix: URL of that site; homeserver:
 *   URL of what is behind it
 */
export async function startProxy(kind, options) {
  await mkdir(options.directory, { recursive: true });
  const program = await programs[kind]();
  const server = await { nginx: startNginx, caddy: startCaddy }[kind](program, options);
  server.ca = await readFile(server.authority);
  return server;
}

async function startNginx(program, { directory, log, site, lines, matrix, homeserver }) {
  const certificate = join(directory, "certificate.pem");
  const key = join(directory, "key.pem");
  const names = [...site.matchAll(/server_name (\S+);/g)].map(([, name]) => name).concat(new URL(matrix).hostname);
  await run([
    ...["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"],
    ...["-subj", "/CN=localhost", "-addext", `subjectAltName=${names.map((name) => `DNS:${name}`)}`, "-keyout", key, "-out", certificate],
  ]);
  // The words of the printed lines that an operator is asked to replace; and a machine without IPv6 cannot listen there.
  const own = (ipv6() ? site : site.replace(/^.*listen \[::\].*\n/m, ""))
    .replace(/ssl_certificate \S+;/, `ssl_certificate ${certificate};`)
    .replace(/ssl_certificate_key \S+;/, `ssl_certificate_key ${key};`);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((what) => `${what}_temp_path ${directory}/${what};`);
  const file = join(directory, "nginx.conf");
  await writeFile(
    file,
    `daemon off;
pid ${directory}/nginx.pid;
events {}
http {
    access_log off;
    ${temporary.join("\n    ")}
${own}
    server {
        listen ${new URL(matrix).port} ssl;
        server_name ${new URL(matrix).hostname};
        ssl_certificate ${certificate};
        ssl_certificate_key ${key};
${lines}
        location ~ ^(/_matrix|/_synapse/client) {
            proxy_pass ${homeserver};
        }
    }
}
`,
  );
  const command = [program, "-p", directory, "-e", "stderr", "-c", file];
  await run([...command, "-t"]);
  const server = new Process("nginx", command, { log });
  server.authority = certificate;
  return server;
}

const ipv6 = () => Object.values(networkInterfaces()).flat().some(({ family }) => family === "IPv6");

async function startCaddy(program, { directory, log, site, lines, matrix, homeserver }) {
  const file = join(directory, "Caddyfile");
  await writeFile(
    file,
    `{
	admin off
	skip_install_trust
	auto_https disable_redirects
}
${site}
${matrix} {
${lines}
	handle /_matrix/* {
		reverse_proxy ${homeserver}
	}
	handle {
		respond 404
	}
}
`,
  );
  const env = { HOME: directory, XDG_DATA_HOME: directory, XDG_CONFIG_HOME: directory };
  const command = (what) => [program, what, "--config", file, "--adapter", "caddyfile"];
  await run(command("validate"), { env });
  const server = new Process("caddy", command("run"), { log, env });
  server.authority = join(directory, "caddy/pki/authorities/local/root.crt");
  await server.line(/serving initial configuration/);
  return server;
}
