// A participant outside any browser: rtc-node, LiveKit's SDK for Node on its Rust core. Run as a process of its own by suites/node.mjs:
// publishes a tone and reports, by message to its parent, how many frames of which pitch it hears from whom.
import {
  AudioFrame, AudioSource, AudioStream, dispose, LocalAudioTrack, Room, RoomEvent, TrackKind, TrackPublishOptions, TrackSource,
} from '@livekit/rtc-node';

const rate = 48000;
const [url, token, frequency] = process.argv.slice(2);

// pitch counts the rising zero crossings of half a second of samples.
function pitch(samples) {
  let crossings = 0;
  for (let i = 1; i < samples.length; i += 1) if (samples[i - 1] < 0 && samples[i] >= 0) crossings += 1;
  return Math.round((crossings * rate) / samples.length);
}

async function listen(track, identity) {
  let heard = [];
  let frames = 0;
  for await (const frame of new AudioStream(track, rate, 1)) {
    frames += 1;
    heard.push(...frame.data);
    if (heard.length < rate / 2) continue;
    process.send({ type: 'heard', identity, frames, frequency: pitch(heard), loudest: Math.max(...heard) });
    heard = [];
  }
}

async function play(source) {
  for (let at = 0; process.connected; at += rate / 100) {
    const samples = Int16Array.from({ length: rate / 100 }, (_, i) => 8000 * Math.sin((2 * Math.PI * Number(frequency) * (at + i)) / rate));
    await source.captureFrame(new AudioFrame(samples, rate, 1, rate / 100));
  }
}

const room = new Room();
room.on(RoomEvent.TrackSubscribed, (track, _, participant) => {
  if (track.kind === TrackKind.KIND_AUDIO) listen(track, participant.identity);
});
room.on(RoomEvent.DataReceived, (payload, participant) => process.send({ type: 'data', identity: participant?.identity, text: new TextDecoder().decode(payload) }));
process.once('disconnect', async () => {
  await room.disconnect();
  await dispose();
  process.exit(0);
});
await room.connect(url, token, { autoSubscribe: true, dynacast: true });
const source = new AudioSource(rate, 1);
const publish = new TrackPublishOptions();
publish.source = TrackSource.SOURCE_MICROPHONE;
await room.localParticipant.publishTrack(LocalAudioTrack.createAudioTrack('tone', source), publish);
process.on('message', ({ text }) => room.localParticipant.publishData(new TextEncoder().encode(text), { reliable: true }));
process.send({ type: 'published', sid: room.localParticipant.sid });
await play(source);
