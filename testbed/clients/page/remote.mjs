// The remote of a leg: a plain peer connection without any SDK, as the web's other calling protocols have, driven from outside through
// window.peer in the same words as a client of ours.
import { inbound, look, outbound, paint, Synthesiser } from '/media.mjs';

let server; // {url, id}
let connection;
let synthesiser;
let streams = {}; // of the leg's, by id: which is a screen
const senders = {}; // by source
const received = new Map(); // by source: {track, element, tone}
const main = document.querySelector('main');

async function ask(path, body = '') {
  const response = await fetch(`${server.url}${path}`, body === null ? {} : { method: 'POST', body });
  const text = await response.text();
  if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
  return JSON.parse(text);
}

function show({ track, streams: [stream] }) {
  const video = track.kind === 'video';
  const source = !video ? 'microphone' : streams[stream.id]?.Screen ? 'screen_share' : 'camera';
  const element = document.createElement(track.kind);
  Object.assign(element, { srcObject: new MediaStream([track]), autoplay: true });
  main.append(element);
  received.set(source, { track, element, tone: video ? undefined : synthesiser.listen(track) });
  track.getRTCStatsReport = async () => connection.getStats(track);
}

// offer describes what there is now to the leg.
async function offer(path, options) {
  await connection.setLocalDescription(await connection.createOffer(options));
  const answer = await ask(path, connection.localDescription.sdp);
  streams = answer.streams;
  await connection.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
  return answer;
}

// call brings this remote into a room: {url, room, identity, color, frequency, encrypted, own, keys: {identity: hex}, rtx, codec}.
async function call({ url, room, identity, color, frequency, encrypted, own, keys = {}, video = true, rtx = true, codec }) {
  synthesiser ??= new Synthesiser();
  server = { url };
  connection = new RTCPeerConnection();
  connection.ontrack = show;
  const stream = new MediaStream();
  const sources = { microphone: await synthesiser.tone(frequency) };
  if (video) sources.camera = paint({ color, width: 320, height: 180, fps: 15 });
  for (const [source, { track }] of Object.entries(sources)) senders[source] = connection.addTrack(track, stream);
  for (const transceiver of connection.getTransceivers()) {
    if (transceiver.sender.track.kind !== 'video') continue;
    const known = RTCRtpReceiver.getCapabilities('video').codecs;
    const wanted = codec ? known.filter((c) => c.mimeType === codec || c.mimeType === 'video/rtx') : known;
    transceiver.setCodecPreferences(rtx ? wanted : wanted.filter((c) => c.mimeType !== 'video/rtx')); // as matrix-js-sdk does
  }
  connection.onicecandidate = ({ candidate }) => {
    if (candidate && server.id) void ask(`/leg/${server.id}/candidate`, JSON.stringify(candidate));
  };
  const query = new URLSearchParams({ room, identity, ...(encrypted && { encrypted: 1 }), ...(own && { own }) });
  const answer = await offer(`/leg?${query}`);
  server.id = answer.id;
  for (const [who, key] of Object.entries(keys)) await ask(`/leg/${server.id}/key?${new URLSearchParams({ identity: who, index: 0, key })}`);
  return { sid: answer.id };
}

// snapshot tells what is received, in the name of whom the leg says it shows.
async function snapshot() {
  const remotes = {};
  if (!server?.id) return { state: 'never called', remotes };
  const { shown, state, offerWanted } = await ask(`/leg/${server.id}`, null);
  for (const [source, { track, element, tone }] of received) {
    const who = shown[source]?.Identity;
    if (!who) continue;
    remotes[who] ??= { identity: who, tracks: {} };
    remotes[who].tracks[source] = {
      subscribed: true, count: 1, sid: track.id, muted: shown[source].Muted, ...await inbound(track), ...(tone ? { tone: tone() } : { color: look(element) }),
    };
  }
  const locals = {};
  for (const [source, sender] of Object.entries(senders)) locals[source] = { encodings: await outbound({ getRTCStatsReport: () => sender.getStats() }) };
  return { state: connection.connectionState, leg: state, offerWanted, remotes, locals };
}

window.peer = {
  call, snapshot,
  events: () => [],
  restart: () => offer(`/leg/${server.id}/answer`, { iceRestart: true }),
  enable: async (source, on) => {
    const transceiver = connection.getTransceivers().find((t) => t.sender === senders[source]);
    transceiver.direction = on ? 'sendrecv' : 'recvonly';
    await offer(`/leg/${server.id}/answer`);
  },
  // accept answers what the leg wants to offer.
  accept: async () => {
    const offered = await ask(`/leg/${server.id}/offer`);
    streams = offered.streams;
    await connection.setRemoteDescription({ type: 'offer', sdp: offered.sdp });
    await connection.setLocalDescription();
    await ask(`/leg/${server.id}/accept`, connection.localDescription.sdp);
  },
  leave: async () => {
    await ask(`/leg/${server.id}/leave`);
    connection.close();
  },
};
