// The probe runs in every frame before its scripts. It only looks: it notes the
// peer connections, which participant a remote track belongs to, whether frames are
// encrypted, and when the first remote picture was shown after Join was pressed.
(() => {
  const connections = [];
  const owners = new Map(); // id of a remote track -> sid of its participant
  const marks = {};
  const seen = new WeakSet();

  window.RTCPeerConnection = new Proxy(window.RTCPeerConnection, {
    construct(target, args, newTarget) {
      const connection = Reflect.construct(target, args, newTarget);
      connections.push(connection);
      connection.addEventListener("track", ({ track, streams }) => {
        // LiveKit names a remote stream "participant|track".
        owners.set(track.id, (streams[0]?.id ?? "").split("|")[0]);
      });
      return connection;
    },
  });

  // Frames are encrypted in transforms, made in one of two ways.
  let transforms = 0;
  for (const side of [window.RTCRtpSender, window.RTCRtpReceiver]) {
    const create = side.prototype.createEncodedStreams;
    if (!create) continue;
    side.prototype.createEncodedStreams = function () {
      transforms++;
      return create.call(this);
    };
  }
  window.RTCRtpScriptTransform &&= new Proxy(window.RTCRtpScriptTransform, {
    construct(target, args, newTarget) {
      transforms++;
      return Reflect.construct(target, args, newTarget);
    },
  });

  document.addEventListener(
    "click",
    (event) => {
      if (event.target.closest?.("[data-testid=lobby_joinCall]")) marks.joined = Date.now();
    },
    true,
  );

  const remoteTrack = (video) => video.srcObject?.getVideoTracks?.().find((track) => owners.has(track.id));

  // requestVideoFrameCallback fires when a decoded frame was presented, which is what a person sees.
  const watch = setInterval(() => {
    for (const video of document.querySelectorAll("video")) {
      if (seen.has(video) || !remoteTrack(video)) continue;
      seen.add(video);
      video.requestVideoFrameCallback(() => {
        const owner = owners.get(remoteTrack(video)?.id);
        if (!owner) return;
        marks.firstFrame ??= Date.now();
        (marks.frames ??= {})[owner] ??= Date.now();
      });
    }
  }, 20);
  window.addEventListener("pagehide", () => clearInterval(watch));

  // A picture is described by a small sample of it: how bright, how varied, and a number that changes with it.
  function picture(video) {
    const canvas = document.createElement("canvas");
    canvas.width = 32;
    canvas.height = 18;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    let sum = 0;
    let squares = 0;
    let print = 0;
    for (let i = 0; i < data.length; i += 4) {
      const light = (data[i] + data[i + 1] + data[i + 2]) / 3;
      sum += light;
      squares += light * light;
      print = (print * 31 + Math.round(light)) % 1_000_000_007;
    }
    const mean = sum / (data.length / 4);
    const deviation = Math.sqrt(Math.max(0, squares / (data.length / 4) - mean * mean));
    return { mean: Math.round(mean), deviation: Math.round(deviation), print };
  }

  async function inbound() {
    const streams = [];
    for (const connection of connections) {
      if (connection.connectionState === "closed") continue;
      for (const stat of (await connection.getStats()).values()) {
        if (stat.type !== "inbound-rtp") continue;
        streams.push({
          kind: stat.kind,
          track: stat.trackIdentifier,
          owner: owners.get(stat.trackIdentifier) ?? "",
          bytes: stat.bytesReceived,
          packets: stat.packetsReceived,
          lost: stat.packetsLost,
          frames: stat.framesDecoded,
          width: stat.frameWidth,
          height: stat.frameHeight,
          keyFrames: stat.keyFramesDecoded,
          freezes: stat.freezeCount,
          energy: stat.totalAudioEnergy,
          samples: stat.totalSamplesReceived,
          concealed: stat.concealedSamples,
        });
      }
    }
    return streams;
  }

  // When bytes of each participant last arrived, looked at several times a second once asked for.
  const arrivals = new Map(); // owner -> {bytes, at}, at in ms since 1970
  let watching;
  async function look() {
    const sums = new Map();
    for (const { owner, bytes } of await inbound()) sums.set(owner, (sums.get(owner) ?? 0) + bytes);
    for (const [owner, bytes] of sums) {
      if (bytes > (arrivals.get(owner)?.bytes ?? 0)) arrivals.set(owner, { bytes, at: Date.now() });
    }
    watching = setTimeout(look, 200);
  }
  window.addEventListener("pagehide", () => clearTimeout(watching));

  const state = (connection) => ({
    connection: connection.connectionState,
    ice: connection.iceConnectionState,
    signalling: connection.signalingState,
    local: connection.localDescription?.sdp,
    remote: connection.remoteDescription?.sdp,
  });

  window.callProbe = {
    marks,
    inbound,
    /** Starts to watch arrivals, or returns what was seen since: owner -> ms since 1970. */
    async arrivals() {
      if (!watching) await look();
      return Object.fromEntries([...arrivals].map(([owner, { at }]) => [owner, at]));
    },
    transforms: () => transforms,
    connections: () => connections.map(state),
    /** What the page shows: one entry a tile. */
    tiles: () =>
      [...document.querySelectorAll("[data-testid=videoTile]")].map((tile) => {
        const video = tile.querySelector("video");
        const track = video && remoteTrack(video);
        return {
          name: tile.querySelector("[data-testid=name_tag]")?.textContent ?? "",
          muted: tile.querySelector("[data-muted]")?.dataset.muted === "true",
          video: tile.dataset.videoEnabled === "true",
          track: track?.id ?? "",
          owner: (track && owners.get(track.id)) ?? "",
          width: video?.videoWidth ?? 0,
          height: video?.videoHeight ?? 0,
          picture: video && video.videoWidth > 0 ? picture(video) : null,
        };
      }),
  };
})();
