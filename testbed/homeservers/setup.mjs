// callserver init against real programs: what it wrote and printed is put to
// use as it stands, in Synapse behind nginx and in Dendrite behind Caddy, and
// members of a room get into its call while others do not.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { request as plain } from "node:http";
import { request as secure } from "node:https";
import { delimiter, dirname, join as path } from "node:path";
import { after, before, describe, test } from "node:test";

import { goProgram } from "../process/cache.mjs";
import { debianPackage } from "../process/debian.mjs";
import { freePorts, Process, run, stopAll } from "../process/process.mjs";
import { ground } from "./ground.mjs";
import { prepareProxy, startProxy } from "./proxies.mjs";

after(stopAll); // what a start that failed left behind

/** The fenced blocks of a Markdown text by what stands behind their first fence. */
const blocks = (markdown) => Object.fromEntries([...markdown.matchAll(/^```(.*)\n([^]*?)^```$/gm)].map(([, title, text]) => [title, text]));

/** Does what an operator does: init, the homeserver, the proxy, check, serve. */
async function setUp({ kind, proxy }) {
  await prepareProxy(proxy);
  await debianPackage("curl", ["curl", "--version"]);
  const { homeserver, directory, logs } = await ground(kind, "setup");
  const [http, admin, tcp, matrixPort, callPort] = await freePorts(5);
  const matrix = `https://matrix.localhost:${matrixPort}`;
  const call = `https://call.localhost:${callPort}`;
  const inside = `http://127.0.0.1:${homeserver.ports.server}`;

  const program = await goProgram("cmd/callserver");
  const own = path(directory, "callserver");
  const steps = await run([
    ...[program, "init", "--yes", "--directory", own, "--server-name", homeserver.name, "--homeserver", kind],
    ...["--client-api", matrix, "--homeserver-url", inside, "--public-url", call, "--proxy", proxy],
    ...["--advertise", "127.0.0.1", "--listen", `127.0.0.1:${http}`],
  ]);
  const snippets = blocks(steps);
  const additions = {
    synapse: `${snippets["yaml homeserver.yaml"]}public_baseurl: ${matrix}\n`, // which it has where it serves the well-known document
    dendrite: snippets["yaml dendrite.yaml"],
  }[kind];
  await homeserver.start({ directory, logs, callserver: `http://127.0.0.1:${http}`, additions });
  const front = await startProxy(proxy, {
    directory: path(directory, proxy),
    log: path(logs, `${proxy}.log`),
    site: snippets[`${proxy} call.localhost`],
    lines: snippets[`${proxy} matrix.localhost`],
    matrix,
    homeserver: inside,
  });

  const commands = snippets["sh start"].trim().split("\n");
  const env = {
    PATH: `${dirname(program)}${delimiter}${process.env.PATH}`,
    // This machine's, not the operator's: free ports.
    CALLSERVER_ADMIN_LISTEN: `127.0.0.1:${admin}`,
    CALLSERVER_MEDIA_UDP_PORT: "0",
    CALLSERVER_MEDIA_TCP_PORT: `${tcp}`,
    CALLSERVER_TURN_ENABLED: "false",
  };
  assert.match(await run(["sh", "-ec", commands[0]], { env }), /: fine/);
  const callserver = new Process("callserver", ["sh", "-ec", `exec ${commands[1]}`], { log: path(logs, "callserver.log"), env });
  await callserver.line(/msg=ready/);
  const transports = [{ type: "livekit", livekit_service_url: `${call}/livekit/jwt`, url: `${call.replace("https", "wss")}/livekit/sfu` }];
  return { homeserver, callserver, front, matrix, call, directory, snippets, transports };
}

for (const [kind, proxy] of [["synapse", "nginx"], ["dendrite", "caddy"]]) {
  describe(`${kind} behind ${proxy}, as printed`, () => {
    let world, alice, mallory, room;
    before(async () => {
      world = await setUp({ kind, proxy });
      alice = await world.homeserver.register("alice", "alice-password");
      mallory = await world.homeserver.register("mallory", "mallory-password");
      room = await alice.createRoom({ name: "members only", encrypted: false });
    });
    after(async () => {
      for (const name of ["front", "callserver", "homeserver"]) await world?.[name].stop();
      if (world) await rm(world.directory, { recursive: true, force: true });
    });

    /** Opens a request as a client would that resolves the name to this machine. */
    const open = (url, options = {}) => {
      const { protocol, hostname, host, port, pathname, search } = new URL(url);
      const headers = { host, ...options.headers };
      const request = protocol === "https:" ? secure : plain;
      return request({ host: "127.0.0.1", port, path: pathname + search, ca: world.front.ca, servername: hostname, agent: false, ...options, headers });
    };
    const ask = async (url, { token, body } = {}) => {
      const headers = token && { authorization: `Bearer ${token}` };
      const sent = open(url, { method: body ? "POST" : "GET", headers });
      sent.end(body && JSON.stringify(body));
      const [response] = await once(sent, "response");
      const text = (await response.setEncoding("utf8").toArray()).join("");
      return { status: response.statusCode, body: text.startsWith("{") ? JSON.parse(text) : text };
    };
    const join = async (user) =>
      ask(`${world.call}/livekit/jwt/sfu/get`, { body: { room, openid_token: await user.openID(), device_id: user.device } });

    for (const version of ["v1", "unstable/org.matrix.msc4143"]) {
      test(`clients of the homeserver find callserver under ${version}`, async () => {
        const { status, body } = await ask(`${world.matrix}/_matrix/client/${version}/rtc/transports`, { token: alice.token });
        assert.equal(status, 200, JSON.stringify(body));
        assert.deepEqual(body.rtc_transports, world.transports);
      });
    }

    if (kind === "synapse") {
      test("Synapse says by itself what the proxy's lines say", async () => {
        const inside = new URL(`http://127.0.0.1:${world.homeserver.ports.server}`);
        const headers = { authorization: `Bearer ${alice.token}` };
        const transports = await fetch(new URL("/_matrix/client/unstable/org.matrix.msc4143/rtc/transports", inside), { headers });
        assert.deepEqual((await transports.json()).rtc_transports, world.transports);
        const wellKnown = await fetch(new URL("/.well-known/matrix/client", inside));
        const document = await wellKnown.json();
        assert.equal(document["m.homeserver"].base_url, `${world.matrix}/`); // it insists on the slash
        document["m.homeserver"].base_url = world.matrix;
        assert.deepEqual(document, JSON.parse(world.snippets["json well-known"]));
      });
    }

    const delegates = kind === "synapse";
    test(`clients are told that callserver ${delegates ? "sends" : "does not send"} their leave`, async () => {
      await world.callserver.line(delegates ? /delayed leaves can be delegated/ : /no delayed events/);
      const { status } = await ask(`${world.call}/livekit/jwt/delegate_delayed_leave`, { body: {} });
      assert.equal(status !== 404, delegates, `answered ${status}`);
    });

    test("everything else still goes to the homeserver", async () => {
      const { status, body } = await ask(`${world.matrix}/_matrix/client/v3/account/whoami`, { token: alice.token });
      assert.deepEqual([status, body.user_id], [200, alice.id]);
    });

    test("the well-known document names the service and the homeserver", () => {
      assert.deepEqual(JSON.parse(world.snippets["json well-known"]), {
        "m.homeserver": { base_url: world.matrix },
        "org.matrix.msc4143.rtc_foci": [{ type: "livekit", livekit_service_url: `${world.call}/livekit/jwt` }],
      });
    });

    test("the commands that look whether it works say so", async () => {
      const [healthy, transports] = world.snippets["sh look"].trim().split("\n");
      const env = { CURL_CA_BUNDLE: world.front.authority };
      assert.match(await run(["sh", "-ec", healthy], { env }), /\bOK\b/i);
      assert.ok((await run(["sh", "-ec", transports], { env })).includes(`${world.call}/livekit/jwt`));
    });

    test("a member of the room joins its call through the proxy's websocket", async () => {
      const { status, body } = await join(alice);
      assert.equal(status, 200, JSON.stringify(body));
      const headers = {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": randomBytes(16).toString("base64"),
      };
      const url = `${body.url.replace("wss", "https")}/rtc?access_token=${body.jwt}&auto_subscribe=1&sdk=js&protocol=16`;
      const sent = open(`${url}&as_long_as_an_offer=${"x".repeat(20_000)}`, { headers });
      sent.end();
      const [response, socket, head] = await Promise.race([
        once(sent, "upgrade"),
        once(sent, "response").then(([refused]) => assert.fail(`answered ${refused.statusCode}`)),
      ]);
      assert.equal(response.statusCode, 101);
      if (head.length === 0) await once(socket, "data"); // the answer to the join
      socket.destroy();
    });

    test("who is not in the room is refused", async () => {
      const { status, body } = await join(mallory);
      assert.deepEqual([status, body.errcode], [403, "M_FORBIDDEN"], JSON.stringify(body));
    });

    /** Asks at the homeserver's own endpoint (MSC4195), with the token of the user's login. */
    const joinAtHome = (site, user) =>
      ask(`${site}/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token`, {
        token: user.token,
        body: { url: world.transports[0].url, room_id: room, slot_id: "m.call#ROOM", member_id: "the-member" },
      });
    for (const way of kind === "synapse" ? ["the proxy's lines", "Synapse itself"] : ["the proxy's lines"]) {
      test(`the homeserver's own endpoint admits members only, through ${way}`, async () => {
        const site = way === "Synapse itself" ? `http://127.0.0.1:${world.homeserver.ports.server}` : world.matrix;
        const admitted = await joinAtHome(site, alice);
        assert.equal(admitted.status, 200, JSON.stringify(admitted.body));
        const refused = await joinAtHome(site, mallory);
        assert.deepEqual([refused.status, refused.body.errcode], [403, "M_FORBIDDEN"], JSON.stringify(refused.body));
      });
    }
  });
}
