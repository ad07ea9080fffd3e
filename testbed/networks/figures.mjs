// What a call was like, computed from what pages and the link noted ten times a second. Pure functions: times are milliseconds.

// within keeps what was noted from one moment to another.
export const within = (samples, from, until) => samples.filter(({ at }) => at >= from && at < until);

const pairs = (samples) => samples.slice(1).map((now, i) => [samples[i], now]);

const rise = (samples, field) => (samples.at(-1)?.[field] ?? 0) - (samples[0]?.[field] ?? 0);

export const quantile = (values, share) => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
};

// track takes one received track out of what a page noted.
export const track = (samples, kind, id) => samples.filter((sample) => sample[kind][id]).map((sample) => ({ at: sample.at, ...sample[kind][id] }));

// heard tells what became of the sound: concealed is the percentage that had to be invented, gap the longest piece (ms) of that.
export function heard(samples) {
  const rate = 48;
  let gap = 0;
  let run = 0;
  for (const [before, now] of pairs(samples)) {
    const concealed = now.concealedSamples - before.concealedSamples;
    if (now.concealmentEvents > before.concealmentEvents) run = 0; // the piece before has ended, though part of this may be its
    run = concealed > 0 ? run + concealed : 0;
    gap = Math.max(gap, run);
  }
  return {
    concealed: (100 * rise(samples, 'concealedSamples')) / rise(samples, 'totalSamplesReceived'),
    gap: gap / rate,
    buffer: (1000 * rise(samples, 'jitterBufferDelay')) / rise(samples, 'jitterBufferEmittedCount'),
    again: rise(samples, 'retransmittedPacketsReceived'),
    lost: rise(samples, 'packetsLost'),
  };
}

// seen tells what became of the picture: frozen is the percentage of the time that it stood still for, still the longest time (ms)
// without a new frame, whatever the browser calls that.
export function seen(samples) {
  const seconds = (samples.at(-1).at - samples[0].at) / 1000;
  let still = 0;
  let since = samples[0].at;
  for (const [before, now] of pairs(samples)) {
    if (now.framesDecoded > before.framesDecoded) since = now.at;
    still = Math.max(still, now.at - since);
  }
  return {
    frozen: (100 * (rise(samples, 'totalFreezesDuration') + rise(samples, 'totalPausesDuration'))) / seconds,
    freezes: rise(samples, 'freezeCount'),
    still,
    fps: rise(samples, 'framesDecoded') / seconds,
    kbps: (8 * rise(samples, 'bytesReceived')) / seconds / 1000,
    keys: rise(samples, 'keyFramesDecoded'),
    again: rise(samples, 'retransmittedPacketsReceived'),
    lines: Math.round(samples.reduce((sum, { frameHeight }) => sum + frameHeight, 0) / samples.length),
  };
}

// filmed is what a publisher's encoders made over time, in the form of what a receiver sees: the largest layer of which frames came.
export const filmed = (samples) => samples.slice(5).map(({ at, sent }, i) => {
  const rising = sent.filter((now) => now.framesEncoded > (samples[i].sent.find(({ rid }) => rid === now.rid)?.framesEncoded ?? 0));
  return { at, frameHeight: Math.max(0, ...rising.map(({ frameHeight }) => frameHeight)), framesDecoded: at };
});

// settled returns after how many ms the picture had so many lines and kept them, but for a twentieth of the remaining time; Infinity if never.
export function settled(samples, lines) {
  const right = samples.map((now, i) => now.frameHeight === lines && i > 0 && samples.slice(Math.max(0, i - 5), i).some((s) => s.framesDecoded < now.framesDecoded));
  let wrong = right.filter((r) => !r).length;
  for (let i = 0; i < samples.length; i += 1) {
    if (right[i] && wrong <= (samples.length - i) / 20) return samples[i].at - samples[0].at;
    if (!right[i]) wrong -= 1;
  }
  return Infinity;
}

// carried tells what one direction of the link did: queue and lateness are of its packets, in ms.
export function carried(trace, direction) {
  const lines = trace.map((line) => line[direction]);
  const seconds = (trace.at(-1).at - trace[0].at) / 1000;
  return {
    queue: quantile(lines.map((l) => l.queue_ms), 0.95),
    worstQueue: Math.max(...lines.map((l) => l.queue_ms)),
    kbps: (8 * rise(lines, 'bytes')) / seconds / 1000,
    lost: (100 * (rise(lines, 'lost') + rise(lines, 'overflown'))) / rise(lines, 'sent'),
  };
}

// late is how late the link itself was, in its worst percent of tenths of a second, in ms.
export const late = (trace) => quantile(trace.flatMap(({ up, down }) => [up.late_ms, down.late_ms]), 0.99);
