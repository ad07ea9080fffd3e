// Frames sealed by livekit-client's own end-to-end encryption are opened by
// sfu/framecrypto, and the other way: every codec, keys of members and of
// passwords, several indices, turned keys.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { repository } from "../process/cache.mjs";
import { run } from "../process/process.mjs";
import { Cryptor, OPUS } from "./worker.mjs";

const start = Buffer.from([0, 0, 0, 1]);
const short = start.subarray(1);
const parameters = [Buffer.from("6742c01f95a0", "hex"), Buffer.from("68ce3c80", "hex")];

/** Bytes of which every other is zero: what has to be escaped in H.264. */
const sparse = (size) => Buffer.from(randomBytes(size).map((byte, i) => (i % 5 < 3 ? 0 : byte & 7)));

/** A frame of a codec: what the encoder made, and what a receiver's decoder is to get. */
const frames = {
  [OPUS]: (i) => ({ plain: Buffer.concat([Buffer.from([0x78]), randomBytes(1 + ((i * 7) % 200))]) }),
  vp8: (i) => ({ plain: randomBytes(10 + ((i * 131) % 3000)), intra: i % 10 === 0 }),
  vp9: (i) => ({ plain: randomBytes(10 + ((i * 131) % 3000)), intra: i % 10 === 0 }),
  h264: (i) => {
    const intra = i % 10 === 0;
    const slice = Buffer.concat([Buffer.from([intra ? 0x65 : 0x41, 0x9a]), (i % 2 ? sparse : randomBytes)(20 + ((i * 131) % 3000))]);
    const units = intra ? [...parameters, slice] : [slice];
    const joined = (code) => Buffer.concat(units.flatMap((unit) => [code, unit]));
    return { plain: joined(i % 3 ? start : short), received: joined(start), intra };
  },
};

const hex = (bytes) => Buffer.from(bytes).toString("hex");

test("sfu/framecrypto and livekit-client's worker read each other's frames", { timeout: 120_000 }, async () => {
  const directory = await mkdtemp(join(tmpdir(), "callserver-testbed-"));
  try {
    const cases = [];
    for (const codec of Object.keys(frames)) {
      const keys = [
        { index: 0, material: randomBytes(16) },
        { index: 255, material: randomBytes(32) },
        { index: 7, password: "hunter2" },
        { index: 1, material: randomBytes(16), turns: 1 }, // the worker follows no more than one turn at a time
      ];
      const sender = await Cryptor.open("encode", codec);
      for (const key of keys) {
        await sender.key(key.index, key.material ?? Buffer.from(key.password), key.password ? "PBKDF2" : "HKDF");
        for (let turn = 0; turn < (key.turns ?? 0); turn++) await sender.ratchet(key.index);
        for (let i = 0; i < 40; i++) {
          const { plain, received = plain, intra = false } = frames[codec](i);
          const sealed = await sender.pass(plain, { intra, timestamp: i * 3000, ssrc: 0 });
          assert.notDeepEqual(sealed, plain);
          cases.push({ codec, index: key.index, material: key.material && hex(key.material), password: key.password, intra, plain: hex(plain), received: hex(received), sealed: hex(sealed) });
        }
      }
    }
    const file = join(directory, "frames.json");
    await writeFile(file, JSON.stringify(cases));
    const command = ["go", "test", "-tags", "goolm", "-count=1", "-v", "-run", "^TestWorker$", "./sfu/framecrypto"];
    const told = await run(command, { cwd: repository, env: { CALLSERVER_TEST_FRAMES: file, CGO_ENABLED: "0" } });
    assert.doesNotMatch(told, /SKIP/);

    const answers = JSON.parse(await readFile(`${file}.sealed`, "utf8"));
    assert.equal(answers.length, cases.length);
    const receivers = {};
    for (const [i, { codec, index, material, password, intra, received }] of cases.entries()) {
      const receiver = (receivers[codec] ??= await Cryptor.open("decode", codec));
      const last = cases[i - 1];
      if (last?.codec !== codec || last.index !== index) {
        await receiver.key(index, material ? Buffer.from(material, "hex") : Buffer.from(password), password ? "PBKDF2" : "HKDF");
      }
      const opened = await receiver.pass(Buffer.from(answers[i], "hex"), { intra, timestamp: 0 });
      assert.equal(hex(opened), received, `frame ${i}, ${codec}, key ${index}`);
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
