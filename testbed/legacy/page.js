// The legacy page: matrix-js-sdk's own 1:1 calls (m.call.*) behind a few
// functions that a test calls, as Element's clients of before MatrixRTC use it.
import { CallEvent, ClientEvent, createClient, createNewMatrixCall } from "matrix-js-sdk";
import { CallEventHandlerEvent } from "matrix-js-sdk/lib/webrtc/callEventHandler";

let client;
/** Every call that this page placed or was offered, the latest last: {call, states, ended}. */
const calls = [];

function watch(call, incoming) {
  const entry = { call, incoming, states: [], identity: undefined, errors: [] };
  calls.push(entry);
  call.on(CallEvent.State, (state) => entry.states.push(state));
  call.on(CallEvent.Error, (error) => entry.errors.push(`${error.code}: ${error.message}`));
  call.on(CallEvent.AssertedIdentityChanged, () => (entry.identity = call.getRemoteAssertedIdentity()));
  call.on(CallEvent.FeedsChanged, () => play(call));
  call.on(CallEvent.Replaced, (other) => watch(other, true)); // it crossed this one, and is answered in its place
  return entry;
}

/** Shows the pictures of everybody else, so that the browser decodes them. */
function play(call) {
  document.body.replaceChildren(
    ...call.getRemoteFeeds().map((feed) => {
      const video = Object.assign(document.createElement("video"), { autoplay: true, playsInline: true, srcObject: feed.stream });
      video.width = 160;
      return video;
    }),
  );
}

const latest = () => {
  const entry = calls.at(-1);
  if (!entry) throw new Error("there is no call");
  return entry;
};

/** Logs in with a token and returns when the first sync is done. Relay: media goes through TURN servers only; keys: it reads encrypted rooms. */
async function start({ baseUrl, userId, deviceId, accessToken, relay = false, keys = false }) {
  client = createClient({ baseUrl, userId, deviceId, accessToken, forceTURN: relay, useE2eForGroupCall: false });
  if (keys) await client.initRustCrypto({ useIndexedDB: false });
  client.on(CallEventHandlerEvent.Incoming, (call) => watch(call, true));
  const ready = new Promise((resolve, reject) => {
    client.on(ClientEvent.Sync, (state) => state === "PREPARED" && resolve());
    setTimeout(() => reject(new Error("no sync within 30 s")), 30_000);
  });
  await client.startClient({ initialSyncLimit: 1, lazyLoadMembers: true });
  await ready;
}

/**
 * Calls in a room; invitee: who is meant, nobody for whoever is there; id: of the call, which decides where two cross; lifetime: of the
 * invitation in ms, 60 s otherwise.
 */
async function place({ room, video = true, invitee, id, lifetime }) {
  const call = createNewMatrixCall(client, room, { invitee });
  if (!call) throw new Error("this browser places no calls");
  if (id) call.callId = id;
  if (lifetime) {
    const send = call.sendVoipEvent.bind(call);
    call.sendVoipEvent = (type, content) => send(type, type === "m.call.invite" ? { ...content, lifetime } : content);
  }
  watch(call, false);
  await (video ? call.placeVideoCall() : call.placeVoiceCall());
}

/** What a person at this page knows of the latest call, or of one before it. */
function state(back = 0) {
  const entry = calls.at(-1 - back);
  if (!entry) return undefined;
  const { call, incoming, states, identity, errors } = entry;
  return {
    id: call.callId,
    incoming,
    state: call.state,
    states,
    errors,
    identity,
    reason: call.hangupReason,
    by: call.hangupParty,
    opponent: call.getOpponentMember()?.userId,
    feeds: call.getRemoteFeeds().map((feed) => ({ purpose: feed.purpose, user: feed.userId, audioMuted: feed.isAudioMuted(), videoMuted: feed.isVideoMuted() })),
  };
}

/** The middle of the picture that the latest call shows, as red, green and blue; undefined if there is none. */
function colour() {
  const video = document.querySelector("video");
  if (!video?.videoWidth) return undefined;
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  context.drawImage(video, video.videoWidth / 2, video.videoHeight / 2, 1, 1, 0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/** What the latest call has received so far, by its connection's statistics. */
async function media() {
  const connection = latest().call.peerConn;
  const seen = { audio: { bytes: 0, energy: 0 }, video: { bytes: 0, frames: 0 }, path: undefined };
  if (!connection) return seen;
  const stats = await connection.getStats();
  for (const report of stats.values()) {
    if (report.type === "inbound-rtp" && report.kind === "audio") {
      seen.audio.bytes += report.bytesReceived;
      seen.audio.energy += report.totalAudioEnergy ?? 0;
    }
    if (report.type === "inbound-rtp" && report.kind === "video") {
      seen.video.bytes += report.bytesReceived;
      seen.video.frames += report.framesDecoded ?? 0;
    }
    if (report.type === "candidate-pair" && report.nominated && report.state === "succeeded") {
      const { candidateType: local, relayProtocol, url } = stats.get(report.localCandidateId);
      const { candidateType: remote, port } = stats.get(report.remoteCandidateId) ?? {};
      seen.path = { local, relayProtocol, url, remote, port };
    }
  }
  return seen;
}

globalThis.legacy = {
  start,
  place,
  state,
  media,
  colour,
  answer: () => latest().call.answer(true, true),
  reject: () => latest().call.reject(),
  turnAway: () => latest().call.hangup("user_busy", false),
  hangup: () => latest().call.hangup("user_hangup", false),
  hangupAll: () => calls.forEach(({ call }) => call.hangup("user_hangup", false)),
  muteAudio: (on) => latest().call.setMicrophoneMuted(on),
  muteVideo: (on) => latest().call.setLocalVideoMuted(on),
  hold: (on) => latest().call.setRemoteOnHold(on),
  shareScreen: (on) => latest().call.setScreensharingEnabled(on),
  restartICE: () => latest().call.peerConn.restartIce(),
};
