// What goes wrong on purpose: a proxy that cuts websockets, a browser behind testbed/link, a homeserver that vouches for anybody.
import { once } from 'node:events';
import { chmodSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { chromiumPath, launchChromium } from './browsers.mjs';
import { Skip } from './runner.mjs';

// The addresses of the two ends, as testbed/link/cmd/link makes them.
export const serverSide = '10.77.0.1';

// startProxy passes TCP on to a port of 127.0.0.1; cut ends every connection and refuses new ones until mend.
export async function startProxy(port) {
  const pairs = new Set();
  let open = true;
  const server = createServer((near) => {
    if (!open) return void near.resetAndDestroy();
    const far = connect(port, '127.0.0.1');
    const pair = [near, far];
    pairs.add(pair);
    for (const [one, other] of [pair, [far, near]]) {
      one.on('error', () => {}).pipe(other);
      one.on('close', () => { other.destroy(); pairs.delete(pair); });
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `ws://127.0.0.1:${server.address().port}`,
    get connections() { return pairs.size; },
    cut() {
      open = false;
      for (const pair of pairs) for (const socket of pair) socket.resetAndDestroy();
    },
    mend() { open = true; },
    close() {
      this.cut();
      server.close();
    },
  };
}

// launchBehindLink starts a Chromium whose only network is a link to this namespace. play runs a script of testbed/link on it; trace is
// the file in which the link notes what it does.
export async function launchBehindLink(world, stage, pagesUrl) {
  if (!world.ownAddress) throw new Skip('needs root, for network namespaces and TUN devices');
  const binary = await world.build('link', './testbed/link/cmd/link');
  const socket = join(world.directory, `${stage.name.replaceAll(' ', '-')}.socket`);
  const trace = join(world.directory, `${stage.name.replaceAll(' ', '-')}.trace`);
  const wrapper = join(world.directory, `${stage.name.replaceAll(' ', '-')}.sh`);
  writeFileSync(wrapper, `#!/bin/sh\nexec "${binary}" --here --control "${socket}" --trace "${trace}" -- "${chromiumPath}" "$@"\n`);
  chmodSync(wrapper, 0o755);
  const browser = await launchChromium({ executable: wrapper, secureOrigins: [new URL(pagesUrl).origin] });
  stage.after(() => browser.close());
  return {
    browser,
    trace,
    async play(...steps) {
      const connection = connect(socket);
      connection.end(JSON.stringify({ seed: 1, steps }));
      let answer = '';
      for await (const data of connection) answer += data;
      return JSON.parse(answer);
    },
  };
}

// startHomeserver answers OpenID questions over federation: token X belongs to user X of example.test.
export async function startHomeserver() {
  const server = createHttpServer((request, response) => {
    const url = new URL(request.url, 'http://homeserver');
    const known = url.pathname === '/_matrix/federation/v1/openid/userinfo';
    response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' });
    response.end(JSON.stringify(known ? { sub: `@${url.searchParams.get('access_token')}:example.test` } : { errcode: 'M_NOT_FOUND', error: 'not found' }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => { server.closeAllConnections(); server.close(); } };
}

// askForToken does what a Matrix client does before it joins: POST /sfu/get.
export async function askForToken(server, user, matrixRoom) {
  const response = await fetch(`${server.http}/livekit/jwt/sfu/get`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      room: matrixRoom, device_id: `${user}-device`,
      openid_token: { access_token: user, token_type: 'Bearer', matrix_server_name: 'example.test', expires_in: 3600 },
    }),
  });
  if (!response.ok) throw new Error(`/sfu/get: ${response.status} ${await response.text()}`);
  return response.json();
}
