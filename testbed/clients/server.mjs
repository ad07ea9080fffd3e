// The SFU under test: callserver built from this repository, or livekit-server for comparison (--reference PATH).
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePorts } from '../process/process.mjs';
import { Child } from './process.mjs';
import { mint } from './token.mjs';
import { claim, until } from './wait.mjs';

// Both configurations are JSON, which is YAML.
const dialects = {
  callserver: (s) => ({
    http: { listen: `${s.listen}:${s.ports.http}` },
    admin: { listen: `127.0.0.1:${s.ports.admin}` },
    media: { udp_port: s.ports.udp, tcp_port: s.ports.tcp, advertise: [s.address] },
    turn: { enabled: false },
    keys: { [s.key]: s.secret },
    room: { auto_create: s.autoCreate },
    ...(s.homeservers && { homeservers: s.homeservers }),
    ...s.settings?.(s.ports),
  }),
  reference: (s) => ({
    port: s.ports.http, bind_addresses: [s.listen],
    rtc: { udp_port: s.ports.udp, tcp_port: s.ports.tcp, node_ip: s.address, use_external_ip: false, enable_loopback_candidate: s.address === '127.0.0.1' },
    keys: { [s.key]: s.secret },
    room: { auto_create: s.autoCreate },
    logging: { level: 'debug' },
  }),
};

// startServer starts one on free ports and returns when it is ready. address is where clients find it (and what it advertises);
// the ports, keys and configuration stay the same over stop and start. settings returns sections of callserver's configuration
// that replace those made here, given the ports; ports are some of them, chosen; secure has the address begin with https and wss.
export async function startServer({ binary, reference = false, directory, name = 'server', address = '127.0.0.1', autoCreate = true, homeservers, settings, ports, secure = false }) {
  const server = new Server();
  const everywhere = address.includes(':') ? '[::]' : '0.0.0.0';
  Object.assign(server, { binary, directory, name, address, autoCreate, homeservers, settings, secure, reference, listen: address === '127.0.0.1' ? address : everywhere });
  const [http, admin, udp, tcp] = await freePorts(4);
  server.ports = { http, admin, udp, tcp, ...ports };
  server.key = 'testbed';
  server.secret = randomBytes(24).toString('hex');
  server.config = join(directory, `${name}.yaml`);
  writeFileSync(server.config, JSON.stringify(dialects[reference ? 'reference' : 'callserver'](server), null, 2));
  await server.start();
  return server;
}

class Server {
  get host() { return this.address.includes(':') ? `[${this.address}]` : this.address; }

  get http() { return `${this.secure ? 'https' : 'http'}://${this.host}:${this.ports.http}`; }

  get url() { return `${this.secure ? 'wss' : 'ws'}://${this.host}:${this.ports.http}`; }

  get log() { return join(this.directory, `${this.name}.log`); }

  async start() {
    const parameters = this.reference ? ['--config', this.config] : ['serve', '--config', this.config];
    this.child = new Child(this.binary, parameters, { log: this.log, cwd: this.directory });
    await until(`${this.name} ready`, async () => {
      if (this.child.how) return true;
      return (await fetch(this.reference ? this.http : `${this.http}/healthz`)).ok;
    }, 15, 20);
    claim(!this.child.how, () => `${this.binary} ended at once:\n${this.tail()}`);
  }

  // stop ends the process by signal; a SIGTERM that drains may take as long as the clients need to hear of it.
  async stop(signal = 'SIGTERM') {
    if (this.reference && signal === 'SIGTERM') setTimeout(() => this.child.process.kill(signal), 500); // one alone waits until everybody has left
    return this.child.stop(signal, 15);
  }

  token(identity, room, more = {}) {
    return mint(this, { identity, room, ...more });
  }

  // participants asks the room service who is in the room: the server's own view, not a client's.
  async participants(room) {
    const response = await fetch(`${this.http}/twirp/livekit.RoomService/ListParticipants`, {
      method: 'POST', body: JSON.stringify({ room }),
      headers: { 'content-type': 'application/json', authorization: `Bearer ${this.token('operator', room, { video: { roomJoin: false, roomAdmin: true } })}` },
    });
    if (response.status === 404) return [];
    claim(response.ok, `ListParticipants: ${response.status}`);
    return (await response.json()).participants ?? [];
  }

  tail(lines = 40) {
    return readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }
}
