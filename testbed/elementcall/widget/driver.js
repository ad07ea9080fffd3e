import { Direction, MatrixError } from "matrix-js-sdk";
import { OpenIDRequestState, WidgetDriver } from "matrix-widget-api";

/** The driver carries out what the frame asks, with the host's session. It grants every capability: a test host asks nobody. */
export class Driver extends WidgetDriver {
  constructor(client, room) {
    super();
    this.client = client;
    this.room = room;
  }

  async validateCapabilities(requested) {
    return requested;
  }

  async sendEvent(eventType, content, stateKey = null, roomId = null) {
    const room = roomId ?? this.room.roomId;
    const { event_id: eventId } =
      stateKey === null
        ? await this.client.sendEvent(room, null, eventType, content)
        : await this.client.sendStateEvent(room, eventType, content, stateKey);
    return { roomId: room, eventId };
  }

  async sendStickyEvent(duration, eventType, content, roomId = null) {
    const room = roomId ?? this.room.roomId;
    const { event_id: eventId } = await this.client._unstable_sendStickyEvent(room, duration, null, eventType, content);
    return { roomId: room, eventId };
  }

  async sendDelayedEvent(delay, eventType, content, stateKey = null, roomId = null) {
    const room = roomId ?? this.room.roomId;
    const { delay_id: delayId } =
      stateKey === null
        ? await this.client._unstable_sendDelayedEvent(room, { delay }, null, eventType, content)
        : await this.client._unstable_sendDelayedStateEvent(room, { delay }, eventType, content, stateKey);
    return { roomId: room, delayId };
  }

  async sendDelayedStickyEvent(delay, duration, eventType, content, roomId = null) {
    const room = roomId ?? this.room.roomId;
    const { delay_id: delayId } = await this.client._unstable_sendStickyDelayedEvent(
      room,
      duration,
      { delay },
      null,
      eventType,
      content,
    );
    return { roomId: room, delayId };
  }

  async cancelScheduledDelayedEvent(delayId) {
    await this.client._unstable_cancelScheduledDelayedEvent(delayId);
  }

  async restartScheduledDelayedEvent(delayId) {
    await this.client._unstable_restartScheduledDelayedEvent(delayId);
  }

  async sendScheduledDelayedEvent(delayId) {
    await this.client._unstable_sendScheduledDelayedEvent(delayId);
  }

  /** contentMap: user -> device -> content; media keys come this way and leave encrypted. */
  async sendToDevice(eventType, encrypted, contentMap) {
    if (!encrypted) {
      const messages = new Map(Object.entries(contentMap).map(([user, devices]) => [user, new Map(Object.entries(devices))]));
      await this.client.sendToDevice(eventType, messages);
      return;
    }
    const sent = [];
    for (const [userId, devices] of Object.entries(contentMap)) {
      for (const [deviceId, content] of Object.entries(devices)) {
        sent.push(this.client.encryptAndSendToDevice(eventType, [{ userId, deviceId }], content));
      }
    }
    await Promise.all(sent);
  }

  async readRoomState(roomId, eventType, stateKey) {
    const state = this.client.getRoom(roomId)?.currentState;
    const found = stateKey === undefined ? state?.getStateEvents(eventType) : [state?.getStateEvents(eventType, stateKey)];
    return (found ?? []).filter(Boolean).map((event) => event.getEffectiveEvent());
  }

  async readRoomTimeline(roomId, eventType, msgtype, stateKey, limit, since) {
    const events = [];
    for (const event of (this.client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? []).toReversed()) {
      if (events.length >= (limit || Infinity) || (since && event.getId() === since)) break;
      if (event.getType() !== eventType) continue;
      if (msgtype && event.getContent().msgtype !== msgtype) continue;
      if (stateKey !== undefined && event.getStateKey() !== stateKey) continue;
      events.push(event.getEffectiveEvent());
    }
    return events;
  }

  async readStickyEvents(roomId) {
    const events = this.client.getRoom(roomId)?._unstable_getStickyEvents() ?? [];
    return [...events].map((event) => event.getEffectiveEvent());
  }

  async readEventRelations(eventId, roomId, relationType, eventType, from, to, limit, direction) {
    const { events, nextBatch, prevBatch } = await this.client.relations(
      roomId ?? this.room.roomId,
      eventId,
      relationType ?? null,
      eventType ?? null,
      { from, to, limit, dir: direction === "f" ? Direction.Forward : Direction.Backward },
    );
    return { chunk: events.map((event) => event.getEffectiveEvent()), nextBatch, prevBatch };
  }

  async askOpenID(observer) {
    observer.update({ state: OpenIDRequestState.Allowed, token: await this.client.getOpenIdToken() });
  }

  async getRtcTransports() {
    return { rtc_transports: await this.client._unstable_getRTCTransports() };
  }

  getKnownRooms() {
    return this.client.getVisibleRooms().map((room) => room.roomId);
  }

  processError(error) {
    return error instanceof MatrixError ? { matrix_api_error: error.asWidgetApiErrorData() } : undefined;
  }
}
