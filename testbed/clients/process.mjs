// Child processes that the tests own: started with a log, ended by their own id, none left behind.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

const running = new Set();

export class Child {
  constructor(command, parameters, { log, cwd, env } = {}) {
    mkdirSync(dirname(log), { recursive: true });
    const out = createWriteStream(log, { flags: 'a' });
    this.log = log;
    this.process = spawn(command, parameters, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.process.stdout.pipe(out, { end: false });
    this.process.stderr.pipe(out, { end: false });
    this.exited = new Promise((resolve) => {
      this.process.once('error', (error) => resolve({ error }));
      this.process.once('exit', (code, signal) => resolve({ code, signal }));
    }).then((how) => {
      running.delete(this);
      this.how = how;
      out.end();
      return how;
    });
    running.add(this);
  }

  // stop sends signal, and SIGKILL when that has not helped within seconds; returns how the process ended.
  async stop(signal = 'SIGTERM', seconds = 10) {
    if (!this.how) {
      this.process.kill(signal);
      const patience = new AbortController();
      await Promise.race([this.exited, pause(seconds * 1000, null, { signal: patience.signal }).catch(() => {})]);
      patience.abort();
      if (!this.how) {
        this.process.kill('SIGKILL');
        await this.exited;
        this.how.late = true;
      }
    }
    return this.how;
  }
}

// stopAll ends whatever is still running: for the end of the run, however it came.
export async function stopAll() {
  await Promise.all([...running].map((child) => child.stop('SIGTERM', 3)));
}

// finish runs a command to its end and throws with its output when it fails.
export async function finish(command, parameters, options = {}) {
  const child = spawn(command, parameters, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  const entry = { stop: () => child.kill('SIGTERM') };
  running.add(entry);
  child.once('close', () => running.delete(entry));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { output += data; });
  const [code] = await Promise.race([once(child, 'close'), once(child, 'error').then(([error]) => { throw error; })]);
  if (code !== 0) throw new Error(`${command} ${parameters.join(' ')}: exit ${code}\n${output}`);
  return output;
}
