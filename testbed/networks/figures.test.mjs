// The figures of a bad network are claims about servers: this says that they are computed right.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { carried, filmed, heard, late, seen, settled } from './figures.mjs';
import { missed } from './scenarios.mjs';
import { tables } from './table.mjs';

const tenths = (count, sample) => Array.from({ length: count + 1 }, (_, i) => ({ at: i * 100, ...sample(i) }));

test('sound: what was concealed, and the longest piece of it', () => {
  const rate = 4800; // samples in a tenth of a second
  const pieces = [960, 0, 4800, 4800, 960, 0, 0, 480, 0, 0]; // 20 ms; then 220 ms that began once; then 10 ms
  const began = [1, 0, 1, 0, 0, 0, 0, 1, 0, 0];
  const sum = (list, n) => list.slice(0, n).reduce((a, b) => a + b, 0);
  const figures = heard(tenths(10, (i) => ({
    totalSamplesReceived: rate * i, concealedSamples: sum(pieces, i), concealmentEvents: sum(began, i),
    jitterBufferDelay: 0.06 * rate * i, jitterBufferEmittedCount: rate * i,
  })));
  assert.equal(figures.gap, 220);
  assert.equal(figures.concealed, 25);
  assert.ok(Math.abs(figures.buffer - 60) < 1e-9);
});

test('picture: a stop shows even where the browser counts no freeze', () => {
  const figures = seen(tenths(20, (i) => ({
    framesDecoded: i < 5 || i > 15 ? i : 4, totalFreezesDuration: i > 18 ? 0.1 : 0, totalPausesDuration: 0, freezeCount: 0, bytesReceived: 1000 * i, frameHeight: 540,
  })));
  assert.equal(figures.still, 1100);
  assert.ok(Math.abs(figures.frozen - 5) < 1e-9);
  assert.equal(figures.kbps, 80);
});

test('a step: when the picture has the right size for good', () => {
  const film = (lines) => lines.map((frameHeight, i) => ({ at: 100 * i, frameHeight, framesDecoded: 2 * i }));
  const times = (count, value) => Array(count).fill(value);
  assert.equal(settled(film([...times(15, 540), ...times(185, 180)]), 180), 1500);
  assert.equal(settled(film([...times(15, 540), ...times(20, 180), ...times(65, 540), ...times(100, 180)]), 180), 10_000, 'a first try does not count');
  assert.equal(settled(film(times(200, 540)), 180), Infinity);
  assert.equal(settled(times(200, 0).map((_, i) => ({ at: 100 * i, frameHeight: 180, framesDecoded: 7 })), 180), Infinity, 'a picture that stands has no size');
});

test('a publisher: the largest layer that it makes', () => {
  const made = tenths(100, (i) => ({
    sent: [{ rid: 'q', frameHeight: 180, framesEncoded: i }, { rid: 'f', frameHeight: 540, framesEncoded: Math.min(i, 30) }],
  }));
  const series = filmed(made);
  assert.deepEqual([series[0].frameHeight, series.at(-1).frameHeight], [540, 180]);
  assert.equal(settled(series.filter(({ at }) => at >= 2000), 180), 1500);
});

test('the link: queue, rate, loss and its own lateness', () => {
  const lane = (i) => ({ queue_ms: i === 5 ? 400 : 10, late_ms: i === 7 ? 90 : 1, bytes: 12_500 * i, sent: 10 * i, lost: i, overflown: 0 });
  const trace = tenths(200, (i) => ({ up: lane(i), down: lane(0) }));
  assert.deepEqual(carried(trace, 'up'), { queue: 10, worstQueue: 400, kbps: 1000, lost: 10 });
  assert.equal(late(trace), 1);
});

test('bars: what misses them is told, and shown bold', () => {
  const bars = { concealed: { below: 3 }, top: { above: 99 } };
  assert.deepEqual(missed(bars, { concealed: 3, top: 99.5 }), ['concealed']);
  assert.deepEqual(missed(bars, { concealed: Number.NaN, top: 99.5 }), ['concealed'], 'what was not measured is not within a bar');
  const run = { name: 'loss-10-down', scenario: { kind: 'steady', seconds: 60, bars }, results: { callserver: { figures: { concealed: 4.2 }, missed: ['concealed'] }, livekit: { failure: 'x', missed: [] } } };
  assert.match(tables([run], ['callserver', 'livekit']), /audio concealed % \(< 3\)[\s\S]*\| loss-10-down \| 60 \| \*\*4\.20\*\* \/ - \|/);
});
