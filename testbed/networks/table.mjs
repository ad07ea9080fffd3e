// The figures of runs as text: a line for one, markdown tables for all.
import { names } from './scenarios.mjs';

const columns = {
  steady: ['concealed', 'gap', 'frozen', 'still', 'fps', 'lines', 'kbps', 'buffer', 'roundTrip'],
  steps: ['down', 'queue', 'worstQueue', 'up', 'sentDown', 'sentUp', 'concealed', 'gap', 'frozen', 'kbps'],
  crowd: ['concealed', 'gap', 'frozen', 'lines', 'worse', 'loss', 'latency', 'latencyBefore', 'top'],
};

const digits = { concealed: 2, frozen: 2, fps: 1, worse: 2, loss: 3, top: 2 };

const number = (name, value) => (Number.isFinite(value) ? value.toFixed(digits[name] ?? 0) : 'never');

// cell shows a figure; bold when it misses its bar.
const cell = (name, { figures, missed }) => (missed.includes(name) ? `**${number(name, figures[name])}**` : number(name, figures[name]));

// written is one result on a line.
export function written(result) {
  if (!result.figures) return result.failure;
  const list = Object.keys(names).filter((name) => result.figures[name] !== undefined).map((name) => `${names[name]} ${number(name, result.figures[name])}`);
  return `${result.missed.length ? `MISSED ${result.missed.map((name) => names[name]).join(', ')}; ` : ''}${list.join(', ')}`;
}

const bar = (name, bars) => {
  const { below, above } = bars[name] ?? {};
  return below === undefined ? (above === undefined ? '' : ` (> ${above})`) : ` (< ${below})`;
};

// tables has a table for each kind of scenario, a row a run, and in each cell the figures of the servers in order.
export function tables(runs, servers) {
  return Object.entries(columns).map(([kind, figures]) => {
    const rows = runs.filter(({ scenario }) => scenario.kind === kind);
    if (!rows.length) return '';
    const bars = Object.assign({}, ...rows.map(({ scenario }) => scenario.bars));
    const head = ['scenario', 's', ...figures.map((name) => names[name] + bar(name, bars))];
    const line = (cells) => `| ${cells.join(' | ')} |\n`;
    const body = rows.map(({ name, scenario, results }) => line([name, scenario.seconds, ...figures.map((figure) => servers.map((server) => (
      results[server]?.figures ? cell(figure, results[server]) : '-')).join(' / '))]));
    return `${line(head)}${line(head.map(() => '---'))}${body.join('')}`;
  }).filter(Boolean).join('\n') + `\nEach cell: ${servers.join(' / ')}; s is for how many seconds. Bold: misses the bar.\n`;
}
