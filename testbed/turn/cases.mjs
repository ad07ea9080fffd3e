// One case a client and transport.
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { allSee } from '../clients/peer.mjs';
import { claim, stopwatch } from '../clients/wait.mjs';
import { cable, Namespace } from '../process/namespaces.mjs';
import { Process, run } from '../process/process.mjs';
import { server4, server6, Site } from '../reach/networks.mjs';

const outside = '198.51.100.1'; // in a network namespace of its own

const secret = randomBytes(24).toString('hex');
const clients = process.env.LONG ? 100 : 10;
const messages = process.env.LONG ? 250 : 50; // each 20 ms after the other
const ports = { http: 443, relay: 3478, tls: 5349 };

// relay starts a server with a relay on the usual ports, and lays the network of its clients' site: Chromium finds no TCP candidate on
// loopback. Clients are told the port for TLS only where HTTPS has another one than its own.
async function relay(stage, more = {}, http = ports.http) {
  const site = await Site.open({ routers: 0 });
  stage.after(() => site.close());
  const [certificate_file, key_file] = ['cert.pem', 'key.pem'].map((name) => join(stage.world.directory, name));
  await run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=callserver',
    '-addext', `subjectAltName=IP:${server4},IP:${server6}`, '-keyout', key_file, '-out', certificate_file]);
  const server = await stage.ownServer({
    address: server4, secure: true, ports: { http },
    settings: ({ udp, tcp }) => ({
      http: { listen: `:${http}`, public_url: `https://${server4}:${http}` },
      tls: { certificate_file, key_file },
      media: { udp_port: udp, tcp_port: tcp, advertise: [server4, server6] },
      limits: { relay: { user: 10 * clients } },
      turn: { secrets: [secret, randomBytes(24).toString('hex')], tls_port: ports.tls, relay_ports: '20000-29999', ...more },
    }),
  });
  return Object.assign(server, { site });
}

// coturn runs its client against the server and returns what it says of the packets: none may be lost.
async function coturn(...parameters) {
  const out = await run(['turnutils_uclient', '-W', secret, '-u', '@alice:example.org', '-n', String(messages), '-z', '20', '-l', '160', ...parameters]);
  const [, lost] = /Total lost packets (\d+)/.exec(out) ?? [];
  const [, sent, received] = /tot_send_msgs=(\d+), tot_recv_msgs=(\d+)\s*$/m.exec(out.slice(out.lastIndexOf('start_mclient: tot_send_msgs'))) ?? [];
  claim(lost === '0' && sent > 0 && sent === received, `uclient ${parameters.join(' ')}: ${received} of ${sent} came back, ${lost} lost\n${out.slice(-1500)}`);
  return Number(sent);
}

// metric reads one of the server's numbers.
async function metric(server, name) {
  const text = await (await fetch(`http://127.0.0.1:${server.ports.admin}/metrics`)).text();
  const line = text.split('\n').find((l) => l.startsWith(`callserver_${name} `));
  return Number(line?.split(' ').at(-1));
}

const transports = {
  udp: { parameters: ['-p', ports.relay], url: 'transport=udp', protocol: 'udp' },
  tcp: { parameters: ['-p', ports.relay, '-t'], url: `:${ports.relay}?transport=tcp`, protocol: 'tcp' },
  tls: { parameters: ['-p', ports.tls, '-t', '-S'], url: `:${ports.tls}?transport=tcp`, protocol: 'tls' },
  443: { parameters: ['-p', ports.http, '-t', '-S'], url: `:${ports.http}?transport=tcp`, protocol: 'tls' },
};

// As many relays as clients, in pairs: each packet goes through two relays, all of which belong to users of a homeserver.
async function pairs(stage) {
  const server = await relay(stage);
  const time = stopwatch();
  const sent = await Promise.all(Object.values(transports).map(({ parameters }) => coturn('-y', '-c', '-m', String(clients), ...parameters.map(String), server4)));
  claim(await metric(server, 'relay_refused_total{reason="bitrate"}') === 0, 'packets were over the bit rate');
  return `${clients} relays each over ${Object.keys(transports).join(', ')}: ${sent.join(', ')} packets, none lost, ${time()} s`;
}

// Peers outside, with and without channels, and pairs of ports; and relays that are each other's peers over TCP.
async function peers(stage) {
  await relay(stage, { peers: { allow: [`${outside}/32`] }, tcp_relay: true });
  const elsewhere = await Namespace.open();
  stage.after(() => elsewhere.close());
  await cable({ namespace: new Namespace(), device: 'beyond', addresses: ['198.51.100.2/24'] }, { namespace: elsewhere, device: 'net', addresses: [`${outside}/24`] });
  await elsewhere.ip('route add default via 198.51.100.2');
  const peer = new Process('turnutils_peer', [...elsewhere.enter, 'turnutils_peer', '-L', outside], { log: join(stage.world.directory, 'peer.log') });
  stage.after(() => peer.stop());
  const few = ['-m', '4', '-e', outside, server4];
  const sent = await Promise.all([coturn('-c', ...few), coturn('-c', '-s', ...few), coturn(...few), coturn('-t', '-c', ...few),
    coturn('-T', '-m', '4', server4)]);
  return `by channel, by indication, with a port for RTCP, over TCP, RFC 6062: ${sent.join(', ')} packets, none lost`;
}

async function stun(stage) {
  await relay(stage);
  for (const address of [server4, server6]) {
    const out = await run(['turnutils_stunclient', '-p', String(ports.relay), address]);
    claim(out.includes(`reflexive addr: ${address}`) || out.includes(`reflexive addr: [${address}]`), `${address}: ${out}`);
  }
  return 'IPv4 and IPv6';
}

async function strangers(stage) {
  const server = await relay(stage);
  for (const wrong of [['-W', 'another secret'], ['-w', 'x']]) {
    const out = await run(['turnutils_uclient', ...wrong, '-u', '@alice:example.org', '-n', '1', '-y', '-c', server4]).catch((error) => error.message);
    claim(out.includes('401') || out.includes('Unauthorized') || out.includes('ended with'), out.slice(-300));
  }
  claim(await metric(server, 'relay_allocations_total{kind="homeserver"}') === 0, 'a stranger got a relay');
  return 'a wrong secret, no time in the name: no relay';
}

// A call at our SFU in which bob goes as he likes, and all others by the relay alone: each over a transport of its own.
async function relayed(stage, http, others) {
  const server = await relay(stage, {}, http);
  const all = await stage.world.pages();
  const pages = all.url(server4);
  const bob = await stage.peer('bob', 'chromium', all.url());
  await bob.join(server, stage.room);
  await bob.publish();
  const browser = await server.site.browser(stage, pages);
  const peers = await Promise.all(Object.keys(others).map((name) => stage.peer(name, browser, pages)));
  for (const peer of peers) {
    const { over, single } = others[peer.identity];
    await peer.join(server, stage.room, { relay: transports[over].url, single });
    await peer.publish();
  }
  await allSee([bob, ...peers], { frames: 5, seconds: 30 });
  const notes = [];
  for (const peer of peers) notes.push(`${others[peer.identity].over} ${await firstFrame(peer, transports[others[peer.identity].over])} ms`);
  claim(await metric(server, 'relay_packets_total{direction="down",kind="join"}') > 0, 'nothing went by the relay');
  return `first frame by ${notes.join(', ')}`;
}

// firstFrame is how long a peer, which must be connected by the relay, waited for it.
async function firstFrame(peer, { protocol, url }) {
  const pair = await peer.call('transport');
  claim(pair?.local.type === 'relay' && pair.local.relay === protocol && pair.local.url.includes(url), `${peer.identity} is connected by ${JSON.stringify(pair)}`);
  const [{ at: begun }] = await peer.events('connecting');
  return (await peer.event('first frame')).at - begun;
}

export const cases = [
  { name: 'stun', about: 'coturn\'s stunclient', run: stun },
  { name: 'pairs', about: 'coturn\'s uclient, relay to relay, over every transport', run: pairs },
  { name: 'peers', about: 'coturn\'s uclient with peers outside, and over TCP', run: peers },
  { name: 'strangers', about: 'coturn\'s uclient without a credential', run: strangers },
  {
    name: 'relayed', about: 'Chromium by the relay over UDP, TCP, and TLS on the port of HTTPS', seconds: 120,
    run: (stage) => relayed(stage, ports.http, { alice: { over: 'udp' }, carol: { over: 'tcp', single: false }, dave: { over: '443' } }),
  },
  {
    name: 'relayed tls', about: 'Chromium by the relay over TLS on a port of its own',
    run: (stage) => relayed(stage, 8443, { alice: { over: 'tls' } }),
  },
];
