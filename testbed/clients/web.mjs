// The page of the peers over real HTTP: a page that a browser driver makes up cannot open loopback sockets.
import { createReadStream } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const library = dirname(createRequire(import.meta.url).resolve('livekit-client'));
const types = { '.html': 'text/html; charset=utf-8', '.mjs': 'text/javascript', '.js': 'text/javascript', '.map': 'application/json' };

// servePages listens on a free port of an address and returns {url(host), close}.
export async function servePages(address = '127.0.0.1') {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://page');
    const path = normalize(pathname === '/' ? '/index.html' : pathname);
    const file = path.startsWith('/livekit-client/') ? join(library, path.slice('/livekit-client/'.length)) : join(here, 'page', path);
    const stream = createReadStream(file);
    stream.once('open', () => {
      response.writeHead(200, { 'content-type': types[extname(file)] ?? 'application/octet-stream' });
      stream.pipe(response);
    });
    stream.once('error', () => response.writeHead(404).end());
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, address, resolve));
  return {
    url: (host = '127.0.0.1') => `http://${host}:${server.address().port}/`,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
