// Secrets are what must stay between a client, callserver and the homeserver: access tokens, OpenID tokens, the tokens of
// the SFU and of the registrations, the ids of delayed leaves. A Secrets collects those of a run, and the error bodies that were answered, and looks
// for the former in everything that callserver left behind.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** Kept in the data file, to send the leave after a restart. */
const delayID = "a delay id";

export class Secrets {
  #values = new Map(); // secret -> what it is
  #errors = [];

  add(what, ...values) {
    for (const value of values) if (value) this.#values.set(value, what);
  }

  /** Notes what a page sends to callserver and what it is answered. */
  watch(page, callserverURL) {
    page.on("request", (request) => {
      if (!request.url().startsWith(callserverURL)) return;
      this.add(delayID, ...matches(request.postData(), /"delay_id":"([^"]+)"/g));
      this.add("an OpenID token", ...matches(request.postData(), /"access_token":"([^"]+)"/g));
      this.add("a token of the SFU", ...matches(request.url(), /access_token=([^&]+)/g));
    });
    page.on("response", async (response) => {
      if (!response.url().startsWith(callserverURL)) return;
      const text = await response.text().catch(() => ""); // the page may be gone
      if (response.ok()) this.add("a token of the SFU", ...matches(text, /"jwt":"([^"]+)"/g));
      else this.#errors.push(text);
    });
  }

  /** Notes an error that callserver answered to the test itself. */
  answered(text) {
    this.#errors.push(text);
  }

  /** Notes the tokens of a registration file. */
  async registration(file) {
    this.add("a token of a registration", ...matches(await readFile(file, "utf8"), /^[ah]s_token: (\S+)$/gm));
  }

  /** Returns where a secret was found: in the log, in files that begin with callserver.db, or in an error body. */
  async found(log, directory) {
    const places = { log: await readFile(log, "latin1"), "an error body": this.#errors.join("\n") };
    for (const name of await readdir(directory)) {
      if (name.startsWith("callserver.db")) places[name] = await readFile(join(directory, name), "latin1");
    }
    const found = [];
    for (const [value, what] of this.#values) {
      for (const [place, text] of Object.entries(places)) {
        if (text.includes(value) && !(what === delayID && place.startsWith("callserver.db"))) found.push(`${what} in ${place}`);
      }
    }
    return { found, secrets: this.#values.size, places: Object.keys(places), errors: this.#errors.length };
  }
}

const matches = (text, pattern) => [...(text ?? "").matchAll(pattern)].map((match) => decodeURIComponent(match[1]));
