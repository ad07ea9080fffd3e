// livekit-client's own worker for end-to-end encryption, as browsers run it, in
// Node: frames go in and come out of the streams that it transforms.
import { EventEmitter, once } from "node:events";

/** The codec of a frame that has no picture. */
export const OPUS = "opus";

/** What the worker says, by kind. */
const said = new EventEmitter();

/** Loads the worker, which speaks through globals, once. */
async function load() {
  if (globalThis.RTCEncodedAudioFrame) return;
  globalThis.RTCEncodedAudioFrame = class {}; // it asks which of the two a frame is, for its log
  globalThis.self = globalThis;
  globalThis.postMessage = ({ kind, data }) => said.emit(`worker ${kind}`, data);
  globalThis.onmessage = null;
  await import("livekit-client/e2ee-worker");
}

const tell = (kind, data) => globalThis.onmessage({ data: { kind, data } });

/** A participant's cryptor for one track. */
export class Cryptor {
  static #tracks = 0;
  #frames = [];
  #wanted = [];

  /** @param {"encode" | "decode"} operation */
  static async open(operation, codec, options = {}) {
    await load();
    const cryptor = new Cryptor();
    const track = `track${Cryptor.#tracks++}`;
    Object.assign(cryptor, { codec, participant: `participant of ${track}` });
    tell("init", {
      loglevel: "error",
      keyProviderOptions: {
        ...{ sharedKey: false, ratchetSalt: "LKFrameEncryptionKey", keySize: 128 },
        ...{ ratchetWindowSize: 10, failureTolerance: 10, keyringSize: 256 }, // as Element Call sets them
        ...options,
      },
    });
    await cryptor.#obeyed();
    const readableStream = new ReadableStream({ start: (controller) => (cryptor.input = controller) });
    const writableStream = new WritableStream({ write: (frame) => cryptor.#take(frame) });
    const video = codec === OPUS ? undefined : codec;
    tell(operation, { readableStream, writableStream, trackId: track, participantIdentity: cryptor.participant, codec: video });
    return cryptor;
  }

  #take(frame) {
    const wanted = this.#wanted.shift();
    if (wanted) wanted(frame);
    else this.#frames.push(frame);
  }

  /** Sets the key of an index and, as a sender, uses it from now on. */
  async key(index, material, algorithm = "HKDF") {
    const key = await crypto.subtle.importKey("raw", material, algorithm, false, ["deriveBits", "deriveKey"]);
    tell("setKey", { participantIdentity: this.participant, key, keyIndex: index, updateCurrentKeyIndex: true });
    await this.#obeyed();
  }

  /** Turns the key of an index. */
  async ratchet(index) {
    const turned = once(said, "worker ratchetKey");
    tell("ratchetRequest", { participantIdentity: this.participant, keyIndex: index });
    await turned;
  }

  /** Enables encryption, and waits until the worker has done all that it was told. */
  async #obeyed() {
    const done = once(said, "worker enable");
    tell("enable", { enabled: true, participantIdentity: this.participant });
    await done;
  }

  /** Passes a frame through, and returns what comes out. */
  async pass(bytes, { intra = false, timestamp = 0, ssrc = 1 } = {}) {
    const frame = { data: Uint8Array.from(bytes).buffer, timestamp, getMetadata: () => ({ synchronizationSource: ssrc }) };
    if (this.codec !== OPUS) frame.type = intra ? "key" : "delta";
    this.input.enqueue(frame);
    const out = this.#frames.shift() ?? (await new Promise((resolve) => this.#wanted.push(resolve)));
    return Buffer.from(out.data);
  }
}
