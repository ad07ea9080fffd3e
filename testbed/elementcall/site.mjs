// The site serves Element Call to the demo's users: one server, an origin of
// its own for each user by the name before ".localhost", so that each browser
// profile can hold all of them apart. It owns the page that logs a user in.
// Element Call itself comes unchanged from its npm package.
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";

import { testbed } from "../process/cache.mjs";

const application = join(testbed, "node_modules", "@element-hq", "element-call-embedded", "dist");
const cryptoModule = join(testbed, "node_modules", "@matrix-org", "matrix-sdk-crypto-wasm", "pkg");
const pages = join(testbed, "elementcall");

const types = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".svg": "image/svg+xml",
};

export class Site {
  /**
   * @param {{homeserver: object, users: object[], room: string, widget?: string, config?: object}} options
   *   room: where the plain link leads; widget: directory of the bundled widget host;
   *   config: more of Element Call's config.json
   */
  constructor({ homeserver, users, room, widget, config = {} }) {
    this.homeserver = homeserver;
    this.users = new Map(users.map((user) => [user.name, user]));
    this.room = room;
    this.widget = widget;
    this.config = {
      default_server_config: { "m.homeserver": { base_url: homeserver.url, server_name: homeserver.name } },
      matrix_rtc_mode: "compatibility",
      ...config,
    };
    this.server = createServer((request, response) => {
      this.#answer(request, response).catch((error) => {
        response.writeHead(error.code === "ENOENT" ? 404 : 500, { "content-type": "text/plain" });
        response.end(`${request.url}: ${error.message}\n`);
      });
    });
  }

  async start() {
    await new Promise((resolve, reject) => this.server.once("error", reject).listen(0, "127.0.0.1", resolve));
    this.port = this.server.address().port;
  }

  /**
   * The user's link; opening it logs in on first use and leads into the room.
   * The widget's host is another client, so it has an origin and thus a device of its own; intent: what it says that the user wants.
   */
  link(user, { room, widget, intent } = {}) {
    const host = widget ? `${user.name}.widget.localhost` : `${user.name}.localhost`;
    const query = new URLSearchParams({ ...(room && { room }), ...(intent && { intent }) });
    return `http://${host}:${this.port}/?${query}`;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  async #answer(request, response) {
    const { pathname } = new URL(request.url, "http://site");
    switch (pathname) {
      case "/":
        return file(response, join(pages, "login.html"));
      case "/login.js":
        return file(response, join(pages, "login.js"));
      case "/user.json":
        return this.#user(request, response);
      case "/config.json":
      case "/room/config.json":
      case "/widget/call/config.json":
        return json(response, this.config);
      case "/room/":
      case "/widget/call/":
        return file(response, join(application, "index.html"));
      case "/widget/":
        return file(response, join(pages, "widget", "host.html"));
    }
    for (const [prefix, directory] of [
      ["/room/assets/", join(application, "assets")],
      ["/widget/call/assets/", join(application, "assets")],
      ["/widget/pkg/", cryptoModule],
      ["/widget/", this.widget],
    ]) {
      if (directory && pathname.startsWith(prefix)) {
        return file(response, within(directory, pathname.slice(prefix.length)));
      }
    }
    response.writeHead(404, { "content-type": "text/plain" }).end("not found\n");
  }

  /** What the login page needs to know; the password is the demo's own and dies with it. */
  #user(request, response) {
    const [name, next] = (request.headers.host ?? "").split(".");
    const user = this.users.get(name);
    if (!user) {
      response.writeHead(404, { "content-type": "text/plain" }).end("no such user\n");
      return;
    }
    json(response, {
      homeserver: this.homeserver.url,
      name: user.name,
      password: user.password,
      room: this.room,
      widget: next === "widget",
    });
  }
}

function within(directory, path) {
  const full = normalize(join(directory, decodeURIComponent(path)));
  if (!full.startsWith(directory + sep)) throw Object.assign(new Error("outside"), { code: "ENOENT" });
  return full;
}

function json(response, value) {
  response.writeHead(200, { "content-type": types[".json"], "cache-control": "no-store" });
  response.end(JSON.stringify(value));
}

async function file(response, path) {
  const { size } = await stat(path);
  // The file names of Element Call's assets hold a hash of their content.
  const caching = path.includes(`${sep}assets${sep}`) ? "max-age=86400" : "no-store";
  response.writeHead(200, {
    "content-type": types[extname(path)] ?? "application/octet-stream",
    "content-length": size,
    "cache-control": caching,
  });
  if (size < 65_536) return response.end(await readFile(path));
  createReadStream(path).pipe(response);
}
