// The networks of these tests: the server's namespace is the one of this process, and a client stands behind as many routers as a case wants.
//
//   server 203.0.113.10 ── 203.0.113.1 router 10.7.1.1 ── 10.7.1.2 router 10.7.2.1 ── … ── 10.7.n.2 client
//   2001:db8::10        ── 2001:db8::1        2001:db8:1::1 ── …
import { join } from 'node:path';
import { chromiumPath, launchChromium } from '../clients/browsers.mjs';
import { cable, Namespace } from '../process/namespaces.mjs';

export const server4 = '203.0.113.10';
export const server6 = '2001:db8::10';

const here = new Namespace();

// Every network has IPv4 and IPv6; a case without one of them leaves its addresses out.
const network4 = (i, host) => (i === 0 ? `203.0.113.${host}` : `10.7.${i}.${host}`);
const network6 = (i, host) => (i === 0 ? `2001:db8::${host}` : `2001:db8:${i}::${host}`);
const addresses = (families, i, host) => [
  ...(families.includes(4) ? [`${network4(i, host)}/24`] : []),
  ...(families.includes(6) ? [`${network6(i, host)}/64`] : []),
];

// A Site is a client with its way to the server. routers are the namespaces in between, the server's neighbour first; each has the devices
// "out" (towards the server) and "in"; the client has "net".
export class Site {
  #closers = [];

  // open lays the cables. mtu is that of what the last router sends to the client.
  static async open({ routers = 1, families = [4, 6], mtu = 1500 } = {}) {
    const site = new Site();
    Object.assign(site, { families, routers: [] });
    try {
      await site.#lay(routers, mtu);
    } catch (error) {
      await site.close();
      throw error;
    }
    return site;
  }

  async #make() {
    const namespace = await Namespace.open();
    this.#closers.push(() => namespace.close());
    return namespace;
  }

  async #lay(routers, mtu) {
    let [before, device, host] = [here, 'public', '10'];
    for (let i = 0; i < routers; i += 1) {
      const router = await this.#make();
      await router.sysctl({ 'ipv4/ip_forward': 1, 'ipv6/conf/all/forwarding': 1 });
      await this.#connect(i, { namespace: before, device, host }, { namespace: router, device: 'out', host: i === 0 ? '1' : '2' });
      if (i > 0) await this.#defaultRoute(router, 'out', i);
      this.routers.push(router);
      [before, device, host] = [router, 'in', '1'];
    }
    this.client = await this.#make();
    await this.#connect(routers, { namespace: before, device, host, mtu }, { namespace: this.client, device: 'net', host: '2' });
    await this.#defaultRoute(this.client, 'net', routers);
    // Without address translation the server answers through the first router, as the Internet would, and each router knows what is behind it.
    await this.#routes(here, 'public', network4(0, 1), network6(0, 1), 0);
    for (const [i, router] of this.routers.entries()) await this.#routes(router, 'in', network4(i + 1, 2), network6(i + 1, 2), i + 1);
  }

  async #connect(i, one, other) {
    const end = ({ host, ...rest }) => ({ ...rest, addresses: addresses(this.families, i, host) });
    await cable(end(one), end(other));
    if (i === 0) this.#closers.push(() => here.ip('link delete public'));
  }

  #defaultRoute(namespace, device, i) {
    return namespace.ip([
      ...(this.families.includes(4) ? [`route replace default via ${network4(i, 1)} dev ${device}`] : []),
      ...(this.families.includes(6) ? [`route replace ::/0 via ${network6(i, 1)} dev ${device}`] : []),
    ].join('\n'));
  }

  // routes has namespace, which is in network i, reach those beyond by a neighbour.
  async #routes(namespace, device, by4, by6, i) {
    for (let beyond = i + 1; beyond <= this.routers.length; beyond += 1) {
      await namespace.ip([
        ...(this.families.includes(4) ? [`route add ${network4(beyond, 0)}/24 via ${by4} dev ${device}`] : []),
        ...(this.families.includes(6) ? [`route add ${network6(beyond, 0)}/64 via ${by6} dev ${device}`] : []),
      ].join('\n'));
    }
  }

  // browser starts a Chromium at the client, hidden as people have it: pages see names of mDNS in place of addresses.
  async browser(stage, pagesUrl, { hidden = false } = {}) {
    const wrapper = await this.client.wrap(chromiumPath, join(stage.world.directory, `${stage.name.replaceAll(' ', '-')}.sh`));
    const browser = await launchChromium({ executable: wrapper, secureOrigins: [new URL(pagesUrl).origin], hidden, ...stage.world.chromium });
    this.#closers.push(() => browser.close());
    return browser;
  }

  async close() {
    for (const close of this.#closers.reverse()) await close();
    this.#closers = [];
  }
}
