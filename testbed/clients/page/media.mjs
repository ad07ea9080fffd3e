// What a peer sends and how it tells what it received: every publisher paints its own colour and sounds its own tone, so that a
// receiver proves not only that something was decoded but that it was decoded from the right publisher.

// paint returns a camera: a canvas of one colour with a white bar that moves, so that every frame differs from the one before.
export function paint({ color, width, height, fps }) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const pen = canvas.getContext('2d');
  let frame = 0;
  const draw = () => {
    pen.fillStyle = `rgb(${color.join(',')})`;
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = 'white';
    pen.fillRect((frame * 7) % width, 0, width / 32, height / 4);
    frame += 1;
  };
  draw();
  const timer = setInterval(draw, 1000 / fps);
  const [track] = canvas.captureStream(fps).getVideoTracks();
  track.contentHint = 'motion';
  return { track, stop: () => { clearInterval(timer); track.stop(); } };
}

// The grain of shoot: squares of so many pixels, of which the brightest and the darkest are so far apart, of 256.
const grain = 2;
const contrast = 24;

// shoot returns a camera of the same colour whose picture is restless grain, so that the encoder needs its whole bit rate as with a real
// one. Every frame is as hard as the one before: where some are harder an encoder leaves out frames to keep its rate, up to half a second of them, which
// looks like a network's doing. The frames are made beforehand: what the machine has goes to the call.
export function shoot({ color: [r, g, b], width, height, fps }) {
  const size = width * height;
  const clamp = (value) => Math.max(16, Math.min(235, Math.round(value)));
  const luma = 0.26 * r + 0.5 * g + 0.1 * b + 16;
  const columns = Math.ceil(width / grain);
  const frames = Array.from({ length: 16 }, () => {
    const frame = new Uint8Array((size * 3) / 2);
    const cells = Float32Array.from({ length: columns * Math.ceil(height / grain) }, () => contrast * (Math.random() - 0.5));
    for (let i = 0; i < size; i += 1) frame[i] = clamp(luma + cells[Math.floor(Math.floor(i / width) / grain) * columns + Math.floor((i % width) / grain)]);
    frame.fill(clamp(-0.15 * r - 0.29 * g + 0.44 * b + 128), size, size + size / 4);
    frame.fill(clamp(0.44 * r - 0.37 * g - 0.07 * b + 128), size + size / 4);
    return frame;
  });
  const track = new MediaStreamTrackGenerator({ kind: 'video' });
  const writer = track.writable.getWriter();
  let count = 0;
  const timer = setInterval(() => {
    const timestamp = performance.now() * 1000;
    writer.write(new VideoFrame(frames[count % frames.length], { format: 'I420', codedWidth: width, codedHeight: height, timestamp })).catch(() => clearInterval(timer));
    count += 1;
  }, 1000 / fps);
  track.contentHint = 'motion';
  return { track, stop: () => { clearInterval(timer); track.stop(); } };
}

// Synthesiser sounds one tone per microphone and listens to what arrives.
export class Synthesiser {
  #context = new AudioContext({ sampleRate: 48000 });

  async tone(frequency) {
    await this.#context.resume();
    const oscillator = new OscillatorNode(this.#context, { frequency });
    const gain = new GainNode(this.#context, { gain: 0.3 });
    const out = new MediaStreamAudioDestinationNode(this.#context, { channelCount: 1 });
    oscillator.connect(gain).connect(out);
    oscillator.start();
    return {
      track: out.stream.getAudioTracks()[0],
      loudness: (value) => gain.gain.setValueAtTime(value, this.#context.currentTime),
      stop: () => oscillator.stop(),
    };
  }

  // listen returns a function that says the loudest frequency (Hz) of the track at this moment, 0 in silence.
  listen(track) {
    const source = this.#context.createMediaStreamSource(new MediaStream([track]));
    const analyser = new AnalyserNode(this.#context, { fftSize: 4096, smoothingTimeConstant: 0 });
    source.connect(analyser);
    const bins = new Float32Array(analyser.frequencyBinCount);
    return () => {
      analyser.getFloatFrequencyData(bins);
      let loudest = 1;
      for (let i = 2; i < bins.length; i += 1) if (bins[i] > bins[loudest]) loudest = i;
      return bins[loudest] > -70 ? Math.round((loudest * this.#context.sampleRate) / analyser.fftSize) : 0;
    };
  }
}

// look returns the mean colour [r, g, b] of the picture that a video element shows now, null when it has none.
export function look(element) {
  if (!element || element.readyState < 2 || !element.videoWidth) return null;
  const canvas = new OffscreenCanvas(16, 9);
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  pen.drawImage(element, 0, 0, 16, 9);
  const { data } = pen.getImageData(0, 0, 16, 9);
  const sum = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c += 1) sum[c] += data[i + c];
  return sum.map((v) => Math.round(v / (data.length / 4)));
}

const inboundFields = ['bytesReceived', 'packetsReceived', 'packetsLost', 'framesDecoded', 'keyFramesDecoded', 'framesDropped', 'frameWidth', 'frameHeight', 'freezeCount',
  'totalFreezesDuration', 'totalAudioEnergy', 'totalSamplesReceived', 'concealedSamples', 'jitter', 'nackCount', 'pliCount', 'decoderImplementation'];
const outboundFields = ['rid', 'active', 'bytesSent', 'packetsSent', 'framesEncoded', 'framesSent', 'frameWidth', 'frameHeight', 'keyFramesEncoded', 'nackCount', 'pliCount',
  'retransmittedPacketsSent', 'qualityLimitationReason', 'encoderImplementation', 'targetBitrate'];

const pick = (stat, fields) => Object.fromEntries(fields.filter((f) => stat[f] !== undefined).map((f) => [f, stat[f]]));
const codecOf = (report, stat) => report.get(stat.codecId)?.mimeType;

// inbound returns the receiver's figures of a remote track; zero-valued where the browser has none yet.
export async function inbound(track) {
  const report = await track.getRTCStatsReport();
  for (const stat of report?.values() ?? []) {
    if (stat.type === 'inbound-rtp') return { ...pick(stat, inboundFields), codec: codecOf(report, stat) };
  }
  return {};
}

// outbound returns one entry per encoding that a local track sends, lowest resolution first.
export async function outbound(track) {
  const report = await track.getRTCStatsReport();
  const found = [];
  for (const stat of report?.values() ?? []) {
    if (stat.type === 'outbound-rtp') found.push({ ...pick(stat, outboundFields), codec: codecOf(report, stat) });
  }
  return found.sort((a, b) => 'qhf'.indexOf(a.rid ?? 'q') - 'qhf'.indexOf(b.rid ?? 'q'));
}
