// The scenarios: what the link does to one person's packets, and what the call must still be like.

// Every link has this delay (ms) each way, and where it has a rate a queue of so many packets: an ordinary line at home.
const delay = 20;
const queue = 50;

// The camera: layers of 180, 360 and 540 lines with 160, 450 and 900 kbit/s.
export const camera = { width: 960, height: 540, fps: 15, simulcast: true, detail: true, videoEncoding: { maxBitrate: 900_000, maxFramerate: 15 } };
export const full = camera.height;
const lowest = 180;

// one is a step of a link's script: conditions for one direction, the plain line for the other.
const one = (direction, conditions, at = 0) => [
  { at_s: at, direction: 'both', delay_ms: delay }, { at_s: at, direction, delay_ms: delay, ...conditions },
];

export const plain = one('up', {});

// Figures as the tables name them.
export const names = {
  concealed: 'audio concealed %', gap: 'longest gap ms', frozen: 'video frozen %', still: 'longest still ms', fps: 'frames/s', lines: 'mean lines',
  kbps: 'video kbit/s', queue: 'queue p95 ms', worstQueue: 'queue max ms', roundTrip: 'round trip ms', buffer: 'audio buffer ms',
  down: 'lower layer after ms', up: 'full quality after ms', sentDown: 'publisher: lower ms', sentUp: 'publisher: full ms', loss: 'others: loss %', latency: 'others: p99 ms', latencyBefore: 'before', worse: 'worse by points', top: 'others: top layer %',
};

const sound = { concealed: { below: 3 }, gap: { below: 200 } };
const picture = { frozen: { below: 2 } };

const loss = (percent, bars) => ({
  name: `loss-${percent}`, about: `${percent} % of all packets lost`, kind: 'steady', seconds: 60, bars, steps: (direction) => one(direction, { loss: percent / 100 }),
});

const rates = { high: 2000, low: 300 };

// stepsOf has phases of so many seconds, one narrow and one wide: more than the ten in which full quality has to come back.
const stepsOf = (phase) => ({
  phase, seconds: 2 * phase,
  steps: (direction) => [...one(direction, { rate_kbps: rates.low, queue }), ...one(direction, { rate_kbps: rates.high, queue }, phase)],
});

// kind says how a scenario is run (call.mjs); bars are for the person whose network it is, in a call of two.
export const scenarios = [
  loss(1, { ...sound, ...picture }),
  loss(5, { ...sound, ...picture }),
  loss(10, sound),
  loss(20, {}),
  {
    name: 'jitter', about: 'up to 30 ms more delay for each packet, out of order too', kind: 'steady', seconds: 60, bars: { ...sound, ...picture },
    steps: (direction) => one(direction, { jitter_ms: 30, reorder: true }),
  },
  {
    name: 'rtt', about: '200 ms round trip', kind: 'steady', seconds: 60, bars: { ...sound, ...picture },
    steps: () => [{ delay_ms: 100 }],
  },
  {
    name: 'steps', about: '2 Mbit/s, then 300 kbit/s, then 2 Mbit/s', kind: 'steps', lines: lowest, ...stepsOf(20),
    bars: { down: { below: 2000 }, queue: { below: 200 }, up: { below: 10_000 } },
    before: (direction) => one(direction, { rate_kbps: rates.high, queue }),
  },
  {
    name: 'blackout', about: 'nothing at all arrives for a second and a half', kind: 'steady', seconds: 20, bars: { still: { below: 2000 } },
    steps: (direction) => [...one(direction, {}), { at_s: 3, direction, delay_ms: delay, loss: 1 }, { at_s: 4.5, direction, delay_ms: delay }],
  },
  {
    name: 'crowd', about: 'one bad receiver (20 % loss, 300 kbit/s) among ten good ones', kind: 'crowd', directions: ['down'], seconds: 15,
    bars: { worse: { below: 2 }, loss: { below: 0.1 }, top: { above: 99.9 } },
    steps: (direction) => one(direction, { rate_kbps: rates.low, queue, loss: 0.2 }),
  },
];

// Limits of a run that means anything: frames of the camera that arrive over a plain line (a share), frozen and concealed (percent), and by
// how much (ms) the link may be late in one tenth of a second of a hundred.
export const limits = { fps: 0.85, frozen: 1, concealed: 1, late: 50 };

// The short form: bars and limits for a machine that is busy with other things, which a fault would still miss by far.
const busy = { fps: 0.5, frozen: 20, concealed: 3, late: 100 };

export const short = [
  { ...loss(10, { concealed: { below: 7 }, gap: { below: 500 }, fps: { above: 5 } }), directions: ['down', 'up'], seconds: 10, limits: busy },
];

// The form for the tables of docs/performance.md, in 25 minutes with both servers: shorter, but for the one whose bar names a time.
const brief = { steady: { seconds: 20 }, steps: stepsOf(12), crowd: { seconds: 10 } };

export const table = scenarios.map((scenario) => (scenario.name === 'loss-5' ? scenario : { ...scenario, ...brief[scenario.kind] }));

// missed returns the figures that are not within their bars.
export const missed = (bars, figures) => Object.entries(bars)
  .filter(([name, { below, above }]) => !(below === undefined || figures[name] < below) || !(above === undefined || figures[name] > above))
  .map(([name]) => name);
