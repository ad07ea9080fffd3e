// One case a kind of network. Each ends with media in both directions; what is printed is how, and how soon the first frame was there.
import { join } from 'node:path';
import { allSee } from '../clients/peer.mjs';
import { claim, until } from '../clients/wait.mjs';
import { run } from '../process/process.mjs';
import { server4, server6, Site } from './networks.mjs';

const few = { frames: 5, seconds: 45 };

// Between join and the first frame, in seconds. Two cores that do other things besides need most of it.
const patience = 15;

// Until an end of UDP has led to another way: the flow must carry its last bytes first, which takes long where pictures come slowly.
const detour = 120;

// call has bob, who is beside the server, publish and alice join from site, and waits until both receive. change is what happens to the
// network between the page and the call, outside where alice finds the server if that is not where it is.
async function call(stage, site, { address = server4, outside, change, hidden, single = true, ...options } = {}) {
  const found = outside?.address ?? address;
  const pages = (await stage.world.pages()).url(found.includes(':') ? `[${found}]` : found);
  const server = await stage.ownServer({ address, ...options });
  const bob = await stage.peer('bob');
  await bob.join(server, stage.room, { single: !single });
  await bob.publish();
  const alice = await stage.peer('alice', await site.browser(stage, pages, { hidden }), pages);
  await change?.(server, Number(new URL(pages).port));
  await alice.join({ url: outside?.url ?? server.url, token: server.token.bind(server) }, stage.room, { single });
  await alice.publish();
  await allSee([alice, bob], few);
  return { alice, bob, server };
}

// over waits until alice is connected over the protocol, or one of some, and returns the pair of addresses.
const over = (alice, protocol, seconds = 20) => until(`alice is connected over ${protocol}`, async () => {
  const pair = await alice.call('transport'); // on a busy machine a check over UDP may be lost, and TCP be first
  claim([protocol].flat().includes(pair?.local.protocol), `it is ${pair?.local.protocol}`);
  return pair;
}, seconds);

// how says over what alice is connected, which must be what the network lets through best, and when she saw the first frame.
async function how(alice, protocol = 'udp') {
  const [{ at: begun }] = await alice.events('connecting');
  const { at } = await alice.event('first frame');
  claim(at - begun < patience * 1000, `the first frame came after ${at - begun} ms`);
  const { local, remote } = await over(alice, protocol);
  return { local, remote, text: `first frame after ${at - begun} ms, ${local.type} ${local.protocol} to ${remote.address}:${remote.port}` };
}

// through does something to the network and says for how many seconds it stopped the pictures, in the direction where that was longer.
async function through(alice, bob, change) {
  const still = () => Promise.all([alice.call('still', bob.identity), bob.call('still', alice.identity)]);
  await still();
  await change();
  await allSee([alice, bob], { frames: 60, seconds: 60 }); // four seconds: what is on its way already does not count
  return (Math.max(...await still()) / 1000).toFixed(1);
}

// inSite makes a case of what happens at a site.
const inSite = (layout, play) => async (stage) => {
  const site = await Site.open(layout);
  stage.after(() => site.close());
  return play(stage, site);
};

// Address translation towards the server, with the ports that random gives ("" keeps them where it can).
const translate = (random = '') => `table ip translate {
  chain post {
    type nat hook postrouting priority srcnat
    oifname "out" masquerade ${random}
  }
}
`;

// Only what belongs to a connection from inside comes in, and of what is from inside only what rules accept.
const firewall = (rules) => `table inet firewall {
  chain pass {
    type filter hook forward priority filter; policy drop
    ct state established,related accept
    iifname "in" jump outwards
  }
  chain outwards {
    ${rules}
  }
}
`;

const plain = inSite({}, async (stage, site) => {
  const [router] = site.routers;
  await router.nft(translate() + firewall('accept'));
  const { alice } = await call(stage, site);
  return (await how(alice)).text;
});

// The browser tells names of mDNS, which nobody but its neighbours resolves.
const hidden = inSite({}, async (stage, site) => {
  const { alice } = await call(stage, site, { hidden: true });
  const { local, text } = await how(alice);
  claim(local.type === 'host' && !/^[\d.]+$/.test(local.address ?? ''), `the address is not hidden: ${JSON.stringify(local)}`);
  return text;
});

const noUDP = (verdict) => inSite({}, async (stage, site) => {
  const [router] = site.routers;
  await router.nft(translate() + firewall(`meta l4proto udp ${verdict}; accept`));
  const { alice } = await call(stage, site);
  return (await how(alice, 'tcp')).text;
});

const symmetric = inSite({}, async (stage, site) => {
  const [router] = site.routers;
  await router.nft(translate('fully-random') + firewall('accept'));
  const { alice } = await call(stage, site);
  return (await how(alice)).text;
});

const onlyIPv6 = inSite({ families: [6] }, async (stage, site) => {
  const [router] = site.routers;
  await router.nft(firewall('accept'));
  const { alice } = await call(stage, site, { address: server6 });
  const { remote, text } = await how(alice);
  claim(remote.address.includes(':'), `connected to ${remote.address}`);
  return text;
});

// What goes to the client in packets over 1280 bytes is lost, and nobody is told, but that routers like this one have TCP keep below it.
const narrow = inSite({ mtu: 1280 }, async (stage, site) => {
  const [router] = site.routers;
  await router.nft(translate() + `table inet silent {
  chain out {
    type filter hook output priority filter
    meta l4proto { icmp, icmpv6 } drop
  }
  chain clamp {
    type filter hook forward priority mangle
    tcp flags syn tcp option maxseg size set 1220
  }
}`);
  const { alice, bob } = await call(stage, site);
  const { text } = await how(alice);
  const big = 'x'.repeat(14_000);
  for (const [from, to] of [[alice, bob], [bob, alice]]) {
    await from.call('send', big, { reliable: true });
    await to.event('data', (e) => e.identity === from.identity && e.text === big);
  }
  await allSee([alice, bob], few);
  return `${text}; data of 14 kB both ways`;
});

// Loses connections to port 443 that do not begin with a record of TLS, as firewalls do that look into them.
const inspection = `table inet inspection {
  chain pass {
    type filter hook forward priority filter - 1
    iifname "in" tcp dport 443 ct mark 0 @ih,0,8 0x16 ct mark set 1
    iifname "in" tcp dport 443 ct mark 0 @ih,0,8 != 0x16 drop
  }
}
`;

// secured has a server speak HTTPS on port 443, and serve TURN if relay says so.
async function secured(stage, relay) {
  const [certificate_file, key_file] = ['cert.pem', 'key.pem'].map((name) => join(stage.world.directory, name));
  await run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=callserver',
    '-addext', `subjectAltName=IP:${server4}`, '-keyout', key_file, '-out', certificate_file]);
  return {
    secure: true, ports: { http: 443 },
    settings: ({ udp, tcp }) => ({
      tls: { certificate_file, key_file },
      ...(relay && {
        http: { listen: '0.0.0.0:443', public_url: `https://${server4}` }, turn: { relay_ports: '20000-29999' },
        media: { udp_port: udp, tcp_port: tcp, advertise: [server4] },
      }),
    }),
  };
}

// byRelay is how alice is connected through the relay on port 443.
async function byRelay(alice, seconds = 20) {
  const { local } = await until('alice is connected by the relay', async () => {
    const pair = await alice.call('transport');
    claim(pair?.local.type === 'relay' && pair.local.relay === 'tls' && pair.local.url.includes(':443'), `it is ${JSON.stringify(pair?.local)}`);
    return pair;
  }, seconds);
  return `by ${local.url}`;
}

// Nothing but TCP to port 443 gets out, where a page that is already there finds HTTPS and ICE on one port, and with relay TURN over TLS too.
const only443 = ({ relay = false, inspected = false } = {}) => inSite({}, async (stage, site) => {
  const [router] = site.routers;
  const { alice } = await call(stage, site, {
    ...await secured(stage, relay),
    change: () => router.nft(translate() + firewall('tcp dport 443 accept') + (inspected ? inspection : '')),
  });
  const { local, remote, text } = await how(alice, [...(inspected ? [] : ['tcp']), ...(relay ? ['udp'] : [])]); // beyond the relay it is UDP
  if (inspected || local.protocol === 'udp') return `${text}, ${await byRelay(alice)}`; // whichever of the two answers first
  claim(remote.port === 443, `connected to port ${remote.port}`);
  return text;
});

// The client is behind two routers, and so is the server, behind one whose ports are not the server's.
const outside = { address: '10.7.1.1', url: 'ws://10.7.1.1:40080' };
const remapped = inSite({ routers: 3 }, async (stage, site) => {
  const [servers, ...clients] = site.routers;
  const forward = (server, pages) => servers.nft(`table ip forward {
    chain to {
      type nat hook prerouting priority dstnat
      ip daddr ${outside.address} udp dport 40000 dnat to ${server4}:${server.ports.udp}
      ip daddr ${outside.address} tcp dport 40001 dnat to ${server4}:${server.ports.tcp}
      ip daddr ${outside.address} tcp dport 40080 dnat to ${server4}:${server.ports.http}
      ip daddr ${outside.address} tcp dport ${pages} dnat to ${server4}:${pages}
    }
    chain direct {
      type filter hook forward priority filter
      ip daddr ${server4} ct status & dnat != dnat drop
    }
  }`);
  await forward({ ports: { udp: 1, tcp: 1, http: 1 } }, Number(new URL((await stage.world.pages()).url()).port)); // the page, at first
  for (const router of clients) await router.nft(translate('fully-random') + firewall('accept'));
  const { alice } = await call(stage, site, {
    outside, change: forward,
    settings: ({ udp, tcp }) => ({ media: { udp_port: udp, tcp_port: tcp, advertise: [server4, { address: outside.address, udp_port: 40000, tcp_port: 40001 }] } }),
  });
  const { remote, text } = await how(alice);
  claim(remote.address === outside.address && remote.port === 40000, `connected to ${remote.address}:${remote.port}`);
  return text;
});

// The client's own address changes, as when a telephone goes from one network to the next.
const moves = inSite({}, async (stage, site) => {
  const [router] = site.routers;
  await router.nft(translate() + firewall('accept'));
  const { alice, bob, server } = await call(stage, site);
  const { text } = await how(alice);
  const pause = await through(alice, bob, () => site.client.ip('address delete 10.7.1.2/24 dev net\naddress add 10.7.1.77/24 dev net\nroute replace default via 10.7.1.1 dev net'));
  await oneEach(alice, bob, server, stage.room);
  return `${text}; no pictures for ${pause} s after the new address`;
});

// The router gets another public address: the client cannot know, and its connections over TCP are dead without a word.
const renumbered = inSite({}, async (stage, site) => {
  const [router] = site.routers;
  await router.nft(translate() + firewall('accept'));
  const { alice, bob, server } = await call(stage, site);
  const { text } = await how(alice);
  const pause = await through(alice, bob, () => router.ip('address add 203.0.113.99/24 dev out\naddress delete 203.0.113.1/24 dev out\naddress replace 203.0.113.99/24 dev out'));
  await oneEach(alice, bob, server, stage.room);
  return `${text}; no pictures for ${pause} s after the router's new address`;
});

// The client comes to be behind address translation, as when a VPN begins: what is sent to the address that it had is lost, and only
// its media is seen under another, which it does not know itself.
const translated = inSite({}, async (stage, site) => {
  const [router] = site.routers;
  const { alice, bob, server } = await call(stage, site);
  const { text } = await how(alice);
  const pause = await through(alice, bob, () => router.nft(`table ip translate {
  chain post {
    type nat hook postrouting priority srcnat
    oifname "out" meta l4proto udp masquerade
  }
  chain direct {
    type filter hook forward priority filter
    iifname "out" meta l4proto udp ct status & snat != snat drop
  }
}`));
  await oneEach(alice, bob, server, stage.room);
  return `${text}; no pictures for ${pause} s after translation began`;
});

// Every flow of UDP is let through at first and lost after some seconds, as by firewalls that find out late what it is. A client that goes on over
// UDP again and again is cut off again and again.
const judge = `table inet judge {
  chain pass {
    type filter hook forward priority filter - 1
    meta l4proto udp ct bytes > 250000 drop
  }
}
`;

const dying = inSite({}, async (stage, site) => {
  const [router] = site.routers;
  await router.sysctl({ 'netfilter/nf_conntrack_acct': 1 });
  await router.nft(translate() + firewall('accept') + judge);
  const { alice, bob } = await call(stage, site);
  const { text } = await how(alice);
  const pause = await through(alice, bob, () => over(alice, 'tcp', detour));
  const begun = Date.now();
  await alice.call('simulate', 'full-reconnect');
  await alice.event('reconnected', ({ at }) => at >= begun, 20);
  await allSee([alice, bob], few);
  const { local } = await alice.call('transport');
  claim(local.protocol === 'tcp', `after a full reconnect it is ${local.protocol}`);
  const interruptions = (await alice.events('signal reconnecting')).length;
  claim(interruptions === 1, `interrupted ${interruptions} times`);
  return `${text}; no pictures for ${pause} s when UDP ended, then over TCP, also after a full reconnect`;
});

// The same firewall lets nothing else out but TLS to port 443: TCP alone does not connect, and the relay is what is left.
const ladder = inSite({}, async (stage, site) => {
  const [router] = site.routers;
  await router.sysctl({ 'netfilter/nf_conntrack_acct': 1 });
  const { alice, bob } = await call(stage, site, {
    ...await secured(stage, true),
    change: () => router.nft(translate() + firewall('meta l4proto udp accept; tcp dport 443 accept') + judge + inspection),
  });
  const { text } = await how(alice);
  let which;
  const pause = await through(alice, bob, async () => { which = await byRelay(alice, detour); });
  return `${text}; no pictures for ${pause} s when UDP ended, then ${which}`;
});

// oneEach waits until both are in the room once, by their own word and the server's.
async function oneEach(alice, bob, server, room) {
  await until('both are in the room once', async () => {
    const names = (await server.participants(room)).map((p) => p.identity).sort().join();
    claim(names === 'alice,bob', `the server lists [${names}]`);
    return true;
  }, 40);
  await allSee([alice, bob], { ...few, seconds: 60 });
}

// Seconds for a case that says nothing else: several times what it needs on two cores that have nothing else to do.
const seconds = 180;

export const cases = [
  { name: 'one router', about: 'address translation', run: plain },
  { name: 'hidden', about: 'the browser hides its addresses behind mDNS names', run: hidden },
  { name: 'no udp', about: 'UDP is dropped', run: noUDP('drop') },
  { name: 'symmetric', about: 'a port of its own for every destination', run: symmetric },
  { name: 'only 443', about: 'nothing but TCP to port 443', run: only443() },
  { name: 'only 443 relay', about: 'the same, where there is a relay too', run: only443({ relay: true }) },
  { name: 'only tls', about: 'nothing but TLS to port 443', run: only443({ relay: true, inspected: true }) },
  { name: 'double', about: 'two routers before the client, one before the server with other ports', run: remapped },
  { name: 'ipv6 only', about: 'no IPv4 at all', run: onlyIPv6 },
  { name: 'mtu 1280', about: 'larger packets to the client are lost without a word', run: narrow },
  { name: 'new address', about: 'the client\'s address changes during the call', run: moves },
  { name: 'translated', about: 'the client comes to be behind address translation during the call', run: translated },
  { name: 'udp dies', about: 'each flow of UDP is lost after some seconds', seconds: 240, run: dying },
  { name: 'ladder', about: 'the same, and nothing else but TLS to port 443', seconds: 240, run: ladder },
  { name: 'new router address', about: 'the address changes that the client is seen under', run: renumbered },
].map((one) => ({ seconds, ...one }));
