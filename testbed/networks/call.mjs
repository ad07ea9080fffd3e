// A call over a bad network: alice publishes, bob receives, one of them is behind the link. What happened is returned as figures.
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { launchBehindLink, serverSide } from '../clients/faults.mjs';
import { finish } from '../clients/process.mjs';
import { claim, until } from '../clients/wait.mjs';
import { carried, filmed, heard, late, quantile, seen, settled, track, within } from './figures.mjs';
import { camera, full, limits, plain } from './scenarios.mjs';

const interval = 100; // ms between two samples of a page
const cleanSeconds = 8;
const patienceSeconds = 40; // for the clean part
const settleSeconds = 40; // for the picture to reach its full size
const loadMargin = 3; // seconds around a measurement of the load generator, for its joins

// Void is thrown when the machine was too busy to measure anything: the message says what was late.
export class Void extends Error {}

// openLink starts the browser behind the link. It comes first: with it come the addresses on which servers listen.
export async function openLink(world, closers) {
  const pages = (await world.pages()).url(serverSide);
  const link = await launchBehindLink(world, { name: 'networks', after: (close) => closers.push(close) }, pages);
  return { ...link, pages, trace: () => readLines(link.trace) };
}

// readLines reads a file of JSON lines, of which the last may be incomplete.
const readLines = (path) => readFileSync(path, 'utf8').split('\n').slice(0, -1).map((line) => JSON.parse(line));

// Call is the two of them, both receiving what they should, over a plain line.
class Call {
  // note, if there is one, is handed everything that is noted on the way: (who, samples).
  constructor(stage, server, link, direction, limits, note = undefined) { Object.assign(this, { stage, server, link, direction, limits, note }); }

  async open(room = this.stage.room) {
    const { stage, server, link } = this;
    const far = (identity, there) => (there ? stage.peer(identity, link.browser, link.pages) : stage.peer(identity));
    await link.play(...plain);
    this.alice = await far('alice', this.direction === 'up');
    this.bob = await far('bob', this.direction === 'down');
    await this.alice.join(server, room, { dynacast: true });
    await this.alice.publish(camera);
    await this.bob.join(server, room);
    await this.receives(this.bob);
    if (this.note) await this.alice.call('record', interval);
  }

  // receives waits until peer has alice's picture in full, and starts the record of what peer receives.
  async receives(peer) {
    await until(`${peer.identity} has the full picture`, async () => {
      const { camera: picture, microphone } = (await peer.snapshot()).remotes.alice?.tracks ?? {};
      claim(picture?.frameHeight === full && microphone?.totalSamplesReceived > 0, () => `${picture?.frameHeight} lines, sound ${microphone?.totalSamplesReceived}`);
      return true;
    }, settleSeconds);
    await peer.call('size', 'alice', 'camera', 64, 36); // painting it large costs more than decoding it
    await peer.call('record', interval);
  }

  // recorded returns everything noted about alice's tracks at peer since it was asked last.
  async recorded(peer) {
    const samples = await this.taken(peer);
    const [picture, sound] = await Promise.all(['camera', 'microphone'].map((source) => peer.call('received', 'alice', source)));
    return { samples, video: track(samples, 'video', picture), audio: track(samples, 'audio', sound) };
  }

  // taken returns what peer noted since it was asked last.
  async taken(peer) {
    const samples = await peer.call('recorded');
    this.note?.(peer.identity, samples);
    return samples;
  }

  // clean watches the call over its plain line until all has been well for cleanSeconds on end, and throws Void if that takes too long:
  // then it is the machine that is bad.
  async clean() {
    let audio = [];
    let video = [];
    let doubts;
    const began = Date.now();
    for (let waited = 0; waited <= patienceSeconds; waited += 2) {
      await pause(2000);
      const more = await this.recorded(this.bob);
      const from = Date.now() - cleanSeconds * 1000;
      audio = within([...audio, ...more.audio], from, Infinity);
      video = within([...video, ...more.video], from, Infinity);
      doubts = from < began ? ['too short'] : [...doubtsOf({ video, audio }, this.limits), ...lateness(within(this.link.trace(), from, Infinity), this.limits)];
      if (!doubts.length) return;
    }
    throw new Void(`the clean part was not clean: ${doubts.join(', ')}`);
  }

  // during lets seconds pass under the steps and returns what was noted meanwhile.
  async during(steps, seconds) {
    const from = Date.now();
    await this.link.play(...steps);
    await pause(seconds * 1000);
    const to = Date.now();
    const { samples, video, audio } = await this.recorded(this.bob);
    const trace = within(this.link.trace(), from, to);
    this.note?.('link', trace);
    const doubts = lateness(trace, this.limits);
    if (doubts.length) throw new Void(doubts.join());
    return { from, samples: within(samples, from, to), video: within(video, from, to), audio: within(audio, from, to), trace };
  }
}

// doubtsOf tells why these figures of a plain line can only be the machine's doing.
function doubtsOf({ video, audio }, limits) {
  const due = (cleanSeconds * 1000) / interval;
  if (Math.min(video.length, audio.length) < due * limits.fps) return [`a page noted its figures ${video.length} times of ${due}`];
  const { fps, frozen } = seen(video);
  const { concealed } = heard(audio);
  return [
    fps < camera.fps * limits.fps && `${fps.toFixed(1)} of ${camera.fps} frames/s`, frozen > limits.frozen && `frozen ${frozen.toFixed(1)} %`,
    concealed > limits.concealed && `${concealed.toFixed(1)} % of the sound concealed`,
  ].filter(Boolean);
}

const lateness = (trace, limits) => (late(trace) > limits.late ? [`the link was ${late(trace).toFixed(0)} ms late`] : []);

function figuresOf({ samples, video, audio, trace }, direction) {
  return { ...carried(trace, direction), ...heard(audio), ...seen(video), roundTrip: quantile(samples.map(({ roundTrip }) => roundTrip), 0.5) };
}

async function steady(call, scenario) {
  await call.open();
  await call.clean();
  return figuresOf(await call.during(scenario.steps(call.direction), scenario.seconds), call.direction);
}

// steps measures how long the picture takes to follow the line, and what waits in its queue meanwhile.
async function steps(call, scenario) {
  await call.open();
  await call.link.play(...scenario.before(call.direction));
  await call.clean();
  await call.alice.call('record', interval);
  const noted = await call.during(scenario.steps(call.direction), scenario.seconds);
  const turn = noted.from + scenario.phase * 1000;
  const low = within(noted.video, noted.from, turn);
  const { queue, worstQueue } = carried(within(noted.trace, noted.from + 2000, turn), call.direction);
  const sent = filmed(await call.taken(call.alice));
  return {
    ...figuresOf(noted, call.direction), queue, worstQueue, kbps: seen(low).kbps,
    down: settled(low, scenario.lines), up: settled(within(noted.video, turn, Infinity), full),
    sentDown: settled(within(sent, noted.from, turn), scenario.lines), sentUp: settled(within(sent, turn, turn + scenario.phase * 1000), full),
  };
}

// load runs our load generator in the same room: one more publisher, of whom and of alice nine others receive everything.
async function load({ server, stage }, seconds) {
  const program = process.env.CALLSERVER ?? await stage.world.build('callserver', './cmd/callserver');
  const parameters = ['bench', '--url', server.url, '--api-key', server.key, '--api-secret', server.secret, '--i-own-this-server', '--quiet', '--json',
    '--publishers', '1', '--subscribers', '9', '--room', stage.room, '--duration', `${seconds}s`];
  const output = await finish(program, parameters).catch((error) => {
    throw error.message.includes('bench: void') ? new Void(error.message.split('bench: void').at(-1).trim()) : error;
  });
  return JSON.parse(output);
}

// crowd has one bad receiver (bob), one good one with a screen (carol) and nine more that only count (and one who publishes to all).
async function crowd(call, scenario) {
  const { stage, server } = call;
  await call.open(`${stage.room}-0`);
  const carol = await stage.peer('carol');
  await carol.join(server, `${stage.room}-0`);
  await call.receives(carol);
  await call.clean();
  const before = await load(call, scenario.seconds);
  const good = await call.recorded(carol);
  const noting = call.during(scenario.steps(call.direction), scenario.seconds + loadMargin);
  const [noted, after] = await Promise.all([noting, load(call, scenario.seconds)]);
  const { samples, video, audio } = await call.recorded(carol);
  return {
    ...figuresOf({ samples, video, audio, trace: noted.trace }, call.direction), theirs: figuresOf(noted, call.direction),
    concealedBefore: heard(good.audio).concealed, frozenBefore: seen(good.video).frozen, latencyBefore: before.latency.p99_ms,
    loss: 100 * after.packets.loss, top: 100 * after.packets.top_layer, latency: after.latency.p99_ms,
    worse: Math.max(heard(audio).concealed - heard(good.audio).concealed, seen(video).frozen - seen(good.video).frozen),
  };
}

const kinds = { steady, steps, crowd };

// measure runs a scenario against a server and returns its figures.
export async function measure(scenario, direction, { world, server, link, note }) {
  const stage = world.stage(`${scenario.name}-${direction}`);
  const call = new Call(stage, server, link, direction, scenario.limits ?? limits, note);
  try {
    const figures = await kinds[scenario.kind](call, scenario);
    if (note) await call.taken(call.alice);
    return figures;
  } catch (error) {
    if (!(error instanceof Void)) error.message += ` (${await stage.evidence(error)})`;
    throw error;
  } finally {
    await stage.close();
  }
}
