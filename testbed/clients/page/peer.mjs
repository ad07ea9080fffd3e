// A participant of a test: livekit-client as an application uses it, driven from outside through window.peer.
import * as lk from '/livekit-client/livekit-client.esm.mjs';
import { shoot, inbound, look, outbound, paint, Synthesiser } from '/media.mjs';
import { Recorder } from '/recorder.mjs';

// Keys gives every participant a key of its own, as Element Call does.
class Keys extends lk.BaseKeyProvider {
  constructor() {
    super({ sharedKey: false, ratchetWindowSize: 10, keyringSize: 256 });
  }

  async set(identity, passphrase, index = 0) {
    const bits = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(passphrase));
    const key = await crypto.subtle.importKey('raw', bits, 'HKDF', false, ['deriveBits', 'deriveKey']);
    this.onSetEncryptionKey(key, identity, index);
  }
}

let room;
let keys;
let synthesiser;
let sources = {}; // what this peer publishes, by LiveKit source: canvas cameras and tones
let elements = new Map(); // track sid -> <video> or <audio>
let listeners = new Map(); // track sid -> frequency meter
let pictures = new Map(); // identity and source -> when the last picture of a video came, and the longest time between two
let events = [];
let rpcs = [];
let recorder;
const main = document.querySelector('main');

function log(type, detail = {}) {
  events.push({ at: Date.now(), type, ...detail });
  if (events.length > 2000) events.shift();
}

// follow notes when pictures come, also over reconnects.
function follow(element, key) {
  const note = () => {
    const now = performance.now();
    const seen = pictures.get(key) ?? { last: now, longest: 0 };
    pictures.set(key, { last: now, longest: Math.max(seen.longest, now - seen.last) });
    element.requestVideoFrameCallback?.(note);
  };
  element.requestVideoFrameCallback?.(note);
}

// still tells the longest time without a new picture since it was asked last, in milliseconds.
function still(identity, source = 'camera') {
  const seen = pictures.get(`${identity} ${source}`);
  if (!seen) return 0;
  const longest = Math.max(seen.longest, performance.now() - seen.last);
  seen.longest = 0;
  return Math.round(longest);
}

function show(track, publication, participant) {
  log('subscribed', { identity: participant.identity, source: publication.source, sid: publication.trackSid });
  const element = track.attach();
  elements.set(publication.trackSid, element);
  main.append(element);
  if (track.kind === 'video') {
    Object.assign(element.style, { width: '320px', height: '180px' });
    element.requestVideoFrameCallback?.(() => log('first frame', { identity: participant.identity, source: publication.source }));
    follow(element, `${participant.identity} ${publication.source}`);
  }
  if (track.kind === 'audio') listeners.set(publication.trackSid, synthesiser.listen(track.mediaStreamTrack));
}

function hide(track, publication, participant) {
  log('unsubscribed', { identity: participant.identity, source: publication.source, sid: publication.trackSid });
  listeners.delete(publication.trackSid);
  track.detach();
  elements.get(publication.trackSid)?.remove();
  elements.delete(publication.trackSid);
}

function watch() {
  const { RoomEvent } = lk;
  const who = (participant) => ({ identity: participant?.identity, sid: participant?.sid });
  const what = (publication, participant) => ({ ...who(participant), source: publication.source, track: publication.trackSid });
  room.on(RoomEvent.TrackSubscribed, show).on(RoomEvent.TrackUnsubscribed, hide)
    .on(RoomEvent.ParticipantConnected, (p) => log('joined', who(p)))
    .on(RoomEvent.ParticipantDisconnected, (p) => log('left', who(p)))
    .on(RoomEvent.TrackPublished, (t, p) => log('published', what(t, p)))
    .on(RoomEvent.TrackUnpublished, (t, p) => log('unpublished', what(t, p)))
    .on(RoomEvent.TrackMuted, (t, p) => log('muted', what(t, p)))
    .on(RoomEvent.TrackUnmuted, (t, p) => log('unmuted', what(t, p)))
    .on(RoomEvent.TrackStreamStateChanged, (t, state, p) => log('stream state', { ...what(t, p), state }))
    .on(RoomEvent.TrackSubscriptionFailed, (track, p, error) => log('subscription failed', { ...who(p), track, error }))
    .on(RoomEvent.SignalReconnecting, () => log('signal reconnecting'))
    .on(RoomEvent.Reconnecting, () => log('reconnecting'))
    .on(RoomEvent.Reconnected, () => log('reconnected'))
    .on(RoomEvent.Disconnected, (reason) => log('disconnected', { reason: lk.DisconnectReason[reason] }))
    .on(RoomEvent.ActiveSpeakersChanged, (list) => log('speakers', { list: list.map((p) => p.identity) }))
    .on(RoomEvent.ConnectionQualityChanged, (quality, p) => log('quality', { ...who(p), quality }))
    .on(RoomEvent.ParticipantMetadataChanged, (_, p) => log('metadata', { ...who(p), metadata: p.metadata }))
    .on(RoomEvent.ParticipantNameChanged, (name, p) => log('name', { ...who(p), name }))
    .on(RoomEvent.ParticipantAttributesChanged, (changed, p) => log('attributes', { ...who(p), changed }))
    .on(RoomEvent.DataReceived, (payload, p, kind, topic) => log('data', { ...who(p), text: new TextDecoder().decode(payload), reliable: kind === lk.DataPacket_Kind.RELIABLE, topic }))
    .on(RoomEvent.ChatMessage, (message, p) => log('chat', { ...who(p), text: message.message }))
    .on(RoomEvent.EncryptionError, (error) => log('encryption error', { message: error.message }))
    .on(RoomEvent.MediaDevicesError, (error) => log('device error', { message: error.message }));
}

// Relayed has connections go through a relay of the URLs that have some text in them, and not in any other way.
const relayed = (text, Connection) => class extends Connection {
  static only(configuration) {
    const iceServers = (configuration.iceServers ?? []).map((s) => ({ ...s, urls: [s.urls].flat().filter((url) => url.includes(text)) }));
    return { ...configuration, iceTransportPolicy: 'relay', iceServers: iceServers.filter((s) => s.urls.length > 0) };
  }

  constructor(configuration) {
    super(new.target.only(configuration));
    this.addEventListener('icecandidateerror', ({ url, errorCode, errorText }) => log('no candidate', { url, errorCode, errorText }));
  }

  setConfiguration(configuration) { super.setConfiguration(this.constructor.only(configuration)); }
};

// join connects; throws {name, reason, status, message} as text so that a test can read why not.
async function join({ url, token, single = true, keyring, adaptiveStream = false, dynacast = false, autoSubscribe = true, defaults = {}, relay }) {
  synthesiser ??= new Synthesiser();
  if (relay) window.RTCPeerConnection = relayed(relay, RTCPeerConnection);
  keys = keyring ? new Keys() : undefined;
  events = [];
  room = new lk.Room({
    singlePeerConnection: single, adaptiveStream, dynacast,
    ...(keys && { e2ee: { keyProvider: keys, worker: new Worker('/livekit-client/livekit-client.e2ee.worker.mjs', { type: 'module' }) } }),
    publishDefaults: { red: false, ...defaults },
  });
  watch();
  if (keys) {
    for (const [identity, passphrase] of Object.entries(keyring)) await keys.set(identity, passphrase);
    await room.setE2EEEnabled(true);
  }
  const started = performance.now();
  log('connecting');
  try {
    await room.connect(url, token, { autoSubscribe });
  } catch (error) {
    throw new Error(JSON.stringify({ name: error.name, reason: error.reasonName, status: error.status, message: error.message }));
  }
  await room.startAudio();
  return { milliseconds: Math.round(performance.now() - started), mode: room.engine.pcManager.mode, sid: room.localParticipant.sid };
}

// speak publishes a tone as the microphone, or the fake device's beeps where no frequency is given.
async function speak({ frequency } = {}) {
  if (!frequency) return void await room.localParticipant.setMicrophoneEnabled(true);
  sources.microphone = await synthesiser.tone(frequency);
  await room.localParticipant.publishTrack(sources.microphone.track, { source: lk.Track.Source.Microphone });
}

// film publishes a painted camera (or screen), or the fake device where no colour is given.
async function film({ color, width = 320, height = 180, fps = 15, source = 'camera', detail = false, ...options }) {
  if (!color) return void await room.localParticipant.setCameraEnabled(true, { resolution: { width, height, frameRate: fps } }, options);
  sources[source] = (detail ? shoot : paint)({ color, width, height, fps });
  await room.localParticipant.publishTrack(sources[source].track, {
    source, simulcast: false, videoEncoding: { maxBitrate: 400_000, maxFramerate: fps }, ...options,
  });
}

const local = (source) => room.localParticipant.getTrackPublication(source);
const remote = (identity, source) => room.remoteParticipants.get(identity)?.getTrackPublication(source);
const elementOf = (identity, source) => elements.get(remote(identity, source)?.trackSid);

async function describeRemote(participant) {
  const tracks = {};
  for (const publication of participant.trackPublications.values()) {
    const { track, source, trackSid } = publication;
    const entry = { sid: trackSid, muted: publication.isMuted, subscribed: publication.isSubscribed, encrypted: publication.isEncrypted,
      mime: publication.mimeType, simulcast: publication.simulcasted, count: (tracks[source]?.count ?? 0) + 1 };
    if (track) {
      Object.assign(entry, await inbound(track), { streamState: track.streamState });
      if (track.kind === 'video') entry.color = look(elementOf(participant.identity, source));
      else entry.tone = listeners.get(trackSid)?.() ?? 0;
    }
    tracks[source] = entry;
  }
  const { identity, sid, name, metadata, attributes, isSpeaking, audioLevel, connectionQuality } = participant;
  return { identity, sid, name, metadata, attributes: { ...attributes }, speaking: isSpeaking, level: audioLevel, quality: connectionQuality, tracks };
}

// snapshot tells everything a test may ask about this peer at this moment.
async function snapshot() {
  if (!room) return { state: 'never joined', remotes: {}, locals: {}, speakers: [], self: {} };
  const self = room.localParticipant;
  const remotes = {};
  for (const participant of [...room.remoteParticipants.values()]) remotes[participant.identity] = await describeRemote(participant);
  const locals = {};
  for (const publication of [...self.trackPublications.values()]) {
    locals[publication.source] = { sid: publication.trackSid, muted: publication.isMuted, mime: publication.mimeType, encodings: publication.track ? await outbound(publication.track) : [] };
  }
  return {
    state: room.state, name: room.name, remotes, locals, speakers: room.activeSpeakers.map((p) => p.identity), mode: room.engine?.pcManager?.mode,
    self: { identity: self.identity, sid: self.sid, name: self.name, metadata: self.metadata, attributes: { ...self.attributes }, quality: self.connectionQuality, speaking: self.isSpeaking },
  };
}

// transport tells the addresses and the protocol of the candidate pair in use.
async function transport() {
  const { publisher } = room.engine.pcManager;
  const report = await publisher.getStats();
  for (const stat of report.values()) {
    if (stat.type !== 'candidate-pair' || !(stat.selected || (stat.nominated && stat.state === 'succeeded'))) continue;
    const end = (id) => {
      const c = report.get(id) ?? {};
      return { type: c.candidateType, protocol: c.protocol, address: c.address, port: c.port, relay: c.relayProtocol, url: c.url };
    };
    return { local: end(stat.localCandidateId), remote: end(stat.remoteCandidateId), rtt: stat.currentRoundTripTime };
  }
  return null;
}

// record notes every interval what the connection received and sent, until recorded asks for it.
function record(milliseconds) {
  recorder?.stop();
  recorder = new Recorder(room.engine.pcManager.publisher, milliseconds);
}

window.peer = {
  record, recorded: () => recorder.take(),
  received: (identity, source) => remote(identity, source).track.mediaStreamTrack.id, // as getStats calls it
  join, speak, film, snapshot, transport, still,
  leave: async () => { await room.disconnect(); },
  events: (type) => (type ? events.filter((e) => e.type === type) : events),
  mute: async (source, on) => { await (on ? local(source).mute() : local(source).unmute()); },
  enable: async (source, on) => {
    if (source === 'camera') await room.localParticipant.setCameraEnabled(on);
    else if (source === 'screen_share') await room.localParticipant.setScreenShareEnabled(on);
    else await room.localParticipant.setMicrophoneEnabled(on);
  },
  unpublish: async (source) => { await room.localParticipant.unpublishTrack(local(source).track, true); },
  loudness: (value) => sources.microphone.loudness(value),
  key: async (identity, passphrase, index) => { await keys.set(identity, passphrase, index); },
  size: (identity, source, width, height) => Object.assign(elementOf(identity, source).style, { width: `${width}px`, height: `${height}px` }),
  visible: (identity, source, on) => { elementOf(identity, source).style.display = on ? 'inline-block' : 'none'; },
  quality: (identity, source, quality) => remote(identity, source).setVideoQuality(lk.VideoQuality[quality]),
  subscribe: (identity, source, on) => remote(identity, source).setSubscribed(on),
  send: async (text, options) => { await room.localParticipant.publishData(new TextEncoder().encode(text), options); },
  chat: async (text) => { await room.localParticipant.sendChatMessage(text); },
  answerRpc: (method) => room.registerRpcMethod(method, async (call) => { rpcs.push(call.payload); return `${call.callerIdentity} said ${call.payload}`; }),
  rpc: (destinationIdentity, method, payload) => room.localParticipant.performRpc({ destinationIdentity, method, payload }),
  metadata: (value) => room.localParticipant.setMetadata(value),
  name: (value) => room.localParticipant.setName(value),
  attributes: (value) => room.localParticipant.setAttributes(value),
  simulate: (scenario) => room.simulateScenario(scenario),
};
