// A real client with encryption, without a browser: matrix-js-sdk with its
// rust crypto, as Element Web has it, its keys in memory. Its own devices are
// signed, and it gives keys to signed devices only, as Element's clients do.
import { ClientEvent, createClient, SyncState } from "matrix-js-sdk";
import { OnlySignedDevicesIsolationMode } from "matrix-js-sdk/lib/crypto-api/index.js";
import { logger } from "matrix-js-sdk/lib/logger.js";

import { eventually } from "../process/eventually.mjs";

logger.setLevel("silent");

// Node 20 has not what matrix-js-sdk 43 takes for granted.
Promise.withResolvers ??= () => {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

export class Client {
  /** Starts a client of a user's login. */
  static async start(user) {
    const client = new Client();
    client.user = user;
    client.sdk = createClient({ baseUrl: user.homeserver.url, userId: user.id, deviceId: user.device, accessToken: user.token });
    await client.sdk.initRustCrypto({ useIndexedDB: false });
    const crypto = client.sdk.getCrypto();
    await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: (send) => send(null) });
    crypto.setDeviceIsolationMode(new OnlySignedDevicesIsolationMode());
    const prepared = new Promise((resolve) => {
      client.sdk.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve());
    });
    await client.sdk.startClient({ initialSyncLimit: 20 });
    await prepared;
    return client;
  }

  stop() {
    this.sdk.stopClient();
  }

  /** Says something in a room, encrypted where the room is, and returns the event's id. */
  async say(room, body) {
    await eventually(`${this.user.id} sees ${room}`, 15_000, (seen) => {
      seen([this.sdk.getSyncState(), this.sdk.getRooms().map((one) => one.roomId)]);
      return this.sdk.getRoom(room)?.hasEncryptionStateEvent() || undefined;
    });
    const { event_id: id } = await this.sdk.sendTextMessage(room, body);
    return id;
  }

  /** Waits for a message of somebody else that can be read and fits, and returns its event. */
  heard(what, room, patience, fits) {
    return eventually(what, patience, (seen) => {
      const events = this.sdk.getRoom(room).getLiveTimeline().getEvents();
      seen(events.slice(-3).map((event) => event.getContent().body ?? event.getType()));
      return events.find((event) => event.getSender() !== this.user.id && event.getType() === "m.room.message" && fits(event));
    });
  }

  /** Says something and waits for the reply to it. */
  async ask(room, body, patience) {
    const said = await this.say(room, body);
    return this.heard(`an answer to ${body}`, room, patience, (event) => event.getContent()["m.relates_to"]?.["m.in_reply_to"]?.event_id === said || event.getWireContent()["m.relates_to"]?.["m.in_reply_to"]?.event_id === said);
  }
}
