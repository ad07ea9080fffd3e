// The widget host is a Matrix client with encryption whose only feature is
// Element Call in a frame: it owns the session, the keys and every request to
// the homeserver, and the frame has none of them. Element Web and Element X
// host Element Call in the same way.
import {
  ClientEvent,
  createClient,
  EventType,
  MatrixEventEvent,
  RoomStateEvent,
  SyncState,
} from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { ClientWidgetApi, MatrixWidgetType, Widget } from "matrix-widget-api";

import { Driver } from "./driver.js";

const widgetId = "call";
logger.setLevel("warn"); // the cryptography logs at length, and on the call's own thread

async function startClient() {
  const session = JSON.parse(localStorage.getItem("matrix-auth-store"));
  const client = createClient({
    baseUrl: session.homeserver,
    userId: session.user_id,
    deviceId: session.device_id,
    accessToken: session.access_token,
  });
  await client.initRustCrypto();
  const prepared = new Promise((resolve) => {
    client.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve());
  });
  await client.startClient({ initialSyncLimit: 20 });
  await prepared;
  return client;
}

/** What its person does: join_existing, or start_call_dm, which rings the other one. */
function callURL(client, room, intent) {
  const parameters = new URLSearchParams({
    widgetId,
    parentUrl: location.origin,
    roomId: room.roomId,
    userId: client.getUserId(),
    deviceId: client.getDeviceId(),
    baseUrl: client.baseUrl,
    intent,
    skipLobby: "false",
    perParticipantE2EE: String(room.hasEncryptionStateEvent()),
  });
  return `${location.origin}/widget/call/#?${parameters}`;
}

/** Passes what happens in the room, and what arrives for this device, into the frame. */
function feed(client, room, api) {
  const tell = (error) => console.warn("widget host: the frame did not take it", error);
  const feedEvent = (event) => {
    if (event.getRoomId() !== room.roomId || event.isState()) return;
    if (event.isBeingDecrypted() || event.getType() === EventType.RoomMessageEncrypted) return;
    api.feedEvent(event.getEffectiveEvent()).catch(tell);
  };
  client.on(ClientEvent.Event, feedEvent);
  client.on(MatrixEventEvent.Decrypted, feedEvent);
  client.on(RoomStateEvent.Events, (event) => {
    if (event.getRoomId() === room.roomId) api.feedStateUpdate(event.getEffectiveEvent()).catch(tell);
  });
  client.on(ClientEvent.ReceivedToDeviceMessage, ({ message, encryptionInfo }) => {
    api.feedToDevice(message, encryptionInfo !== null).catch(tell);
  });
}

/** Actions that Element Call tells or asks its host, beyond those of the widget API itself. */
function acknowledge(api) {
  for (const action of ["io.element.join", "io.element.device_mute", "io.element.close", "im.vector.hangup"]) {
    api.on(`action:${action}`, (event) => {
      event.preventDefault();
      api.transport.reply(event.detail, {});
    });
  }
  api.on("action:set_always_on_screen", (event) => {
    event.preventDefault();
    api.transport.reply(event.detail, { success: true });
  });
}

/** For tests: what the person sees in the room, and does there, besides the call. */
const person = (client, room) => ({
  /** The events of a type since a time in ms, decrypted, the newest first. */
  events: ([type, since]) =>
    room
      .getLiveTimeline()
      .getEvents()
      .filter((event) => event.getType() === type && event.getTs() >= since)
      .map((event) => ({ id: event.getId(), sender: event.getSender(), content: event.getContent(), encrypted: event.isEncrypted() }))
      .toReversed(),
  send: ([type, content]) => client.sendEvent(room.roomId, type, content),
});

async function main() {
  const client = await startClient();
  const query = new URLSearchParams(location.search);
  const room = client.getRoom(query.get("room"));
  if (!room) throw new Error("this user is not in the room");
  globalThis.host = person(client, room);
  const url = callURL(client, room, query.get("intent") ?? "join_existing");
  const frame = document.createElement("iframe");
  frame.allow = "camera; microphone; display-capture; autoplay; fullscreen";
  const widget = new Widget({
    id: widgetId,
    creatorUserId: client.getUserId(),
    type: MatrixWidgetType.Custom,
    waitForIframeLoad: false,
    url,
  });
  document.body.append(frame);
  const api = new ClientWidgetApi(widget, frame, new Driver(client, room));
  acknowledge(api);
  feed(client, room, api);
  api.setViewedRoomId(room.roomId);
  frame.src = url;
}

main().catch((error) => {
  document.body.textContent = `The widget host did not start: ${error.message}`;
  console.error(error);
});
