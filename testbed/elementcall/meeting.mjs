// A Meeting is several users' Element Calls in one room: it has them join one
// after the other, waits for what each of them must see, and says what happened
// when something is not right. Its members may be of several stacks.
import { eventually } from "../process/eventually.mjs";
import { Call, PATIENCE_MS } from "./call.mjs";

export class Meeting {
  /**
   * Opens a page for each seat.
   * @param {object} browser from launch
   * @param {{user: object, stack: object}[]} seats who takes part, each at the stack of their homeserver
   * @param {{logs: string, widget?: boolean, tell?: (text: string) => void}} options
   */
  static async create(browser, seats, { logs, widget = false, tell = console.log }) {
    const calls = [];
    for (const { user, stack } of seats) {
      const call = await Call.create(browser, user, { widget, logs });
      calls.push(Object.assign(call, { stack }));
    }
    return new Meeting(calls, logs, tell);
  }

  constructor(calls, logs, tell) {
    Object.assign(this, { calls, logs, print: tell });
    /** What each join took: {label, name, ms}. */
    this.times = [];
  }

  /** The next scenes are in this Matrix room, and their messages and files have this label. */
  move(label, room) {
    Object.assign(this, { label, room });
  }

  tell(text) {
    this.print(`${this.label}: ${text}`);
  }

  /** Opens Element Call's lobby for everybody. */
  async open() {
    await Promise.all(this.calls.map((call) => call.open(call.stack.site.link(call.user, { room: this.room, widget: call.widget }))));
  }

  /** One after the other, so that each join's time is its own. */
  async join() {
    for (const [index, call] of this.calls.entries()) {
      await call.join();
      const present = this.calls.slice(0, index + 1);
      for (const other of present) await expectTiles(other, present);
      if (index > 0) await this.#firstPicture(call);
    }
  }

  async #firstPicture(call) {
    const { joined, firstFrame } = await eventually(`${call.name} sees the first remote picture`, PATIENCE_MS, async () => {
      const marks = await call.marks();
      return marks.firstFrame ? marks : undefined;
    });
    const ms = firstFrame - joined;
    this.times.push({ label: this.label, name: call.name, ms });
    this.tell(`${call.name} sees the first remote picture ${ms} ms after the click on Join`);
  }

  /**
   * Runs the scene; a callserver that ends meanwhile fails it. Whatever fails leaves screenshots, consoles and the
   * servers' own figures with the logs.
   */
  async play(scene) {
    const stacks = [...new Set(this.calls.map(({ stack }) => stack))];
    const crashes = stacks.map(({ callserver }) =>
      callserver.exited.then((how) => Promise.reject(new Error(`callserver ${how}; see ${callserver.log}`))),
    );
    try {
      return await Promise.race([scene(this), ...crashes]);
    } catch (error) {
      await Promise.all(this.calls.map((call) => call.report(this.label)));
      for (const stack of stacks) await stack.report(stack.options.logs);
      throw new Error(`${this.label}: ${error.message}\n  screenshots, consoles and logs: ${this.logs}`, { cause: error });
    }
  }

  async close() {
    await Promise.all(this.calls.map((call) => call.close()));
  }
}

/** Waits until the page shows a tile for each of these and for nobody else. */
export function expectTiles(call, calls) {
  const wanted = calls.map(({ name }) => name).sort();
  return eventually(`${call.name} shows the tiles of ${wanted.join(", ")}`, PATIENCE_MS, async (seen) => {
    // Who speaks may have a large tile besides the small one.
    const tiles = [...new Set((await call.tiles()).map(({ name }) => name))].sort();
    seen(tiles);
    return tiles.join() === wanted.join() ? true : undefined;
  });
}

/** Each track sent and received passes a transform when it is encrypted, and none otherwise. */
export async function expectEncryption(calls, encrypted) {
  const tracks = 2 * calls.length; // sound and picture, one's own and everybody's
  for (const call of calls) {
    const transforms = await call.transforms();
    if (encrypted ? transforms < tracks : transforms > 0) {
      throw new Error(`${call.name}: ${transforms} encrypted tracks in a room that is ${encrypted ? "" : "not "}encrypted`);
    }
  }
}
