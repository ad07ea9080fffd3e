import { ConnectionState, type DisconnectReason, Room, RoomEvent } from 'livekit-client';
import { explain, farewell } from './explain';
import { type Tile, tiles } from './tiles';

/** What changes the picture of a room. */
const changes = [
  RoomEvent.ParticipantConnected,
  RoomEvent.ParticipantDisconnected,
  RoomEvent.ParticipantNameChanged,
  RoomEvent.TrackSubscribed,
  RoomEvent.TrackUnsubscribed,
  RoomEvent.TrackUnpublished,
  RoomEvent.TrackMuted,
  RoomEvent.TrackUnmuted,
  RoomEvent.LocalTrackPublished,
  RoomEvent.LocalTrackUnpublished,
  RoomEvent.ActiveSpeakersChanged,
  RoomEvent.ConnectionStateChanged,
] as const;

type Device = 'microphone' | 'camera' | 'screen';

/** One call, from joining to leaving, as the page shows it. */
export class Call {
  tiles = $state.raw<Tile[]>([]);
  /** What the person should know, e.g. that a device is missing. */
  notice = $state('');
  reconnecting = $state(false);
  on = $state<Record<Device, boolean>>({ microphone: false, camera: false, screen: false });
  /** The browser wants a click before it plays sound. */
  silent = $state(false);

  private readonly room: Room;

  constructor(ended: (why: string) => void, room = new Room({ adaptiveStream: true, dynacast: true })) {
    this.room = room;
    for (const event of changes) room.on(event, this.look);
    room.on(RoomEvent.AudioPlaybackStatusChanged, () => (this.silent = !room.canPlaybackAudio));
    room.on(RoomEvent.MediaDevicesError, (error: Error) => (this.notice = explain(error)));
    room.on(RoomEvent.Disconnected, (reason?: DisconnectReason) => ended(farewell(reason)));
  }

  /** Joins, then opens microphone and camera. A device that is missing or refused becomes a notice, not an end. */
  async join(url: string, token: string): Promise<void> {
    await this.room.connect(url, token);
    this.look();
    await this.set('microphone', true);
    await this.set('camera', true);
  }

  async leave(): Promise<void> {
    await this.room.disconnect();
  }

  async toggle(device: Device): Promise<void> {
    this.notice = '';
    await this.set(device, !this.on[device]);
  }

  async play(): Promise<void> {
    await this.room.startAudio();
  }

  private async set(device: Device, on: boolean): Promise<void> {
    if (this.room.state === ConnectionState.Disconnected) return; // left while a permission was asked for
    const me = this.room.localParticipant;
    try {
      if (device === 'microphone') await me.setMicrophoneEnabled(on);
      else if (device === 'camera') await me.setCameraEnabled(on);
      else await me.setScreenShareEnabled(on, { audio: true });
    } catch (error) {
      this.notice = `${device[0]?.toUpperCase()}${device.slice(1)}: ${explain(error)}`;
    }
    this.look();
  }

  private look = (): void => {
    const me = this.room.localParticipant;
    this.tiles = tiles(this.room);
    this.on = { microphone: me.isMicrophoneEnabled, camera: me.isCameraEnabled, screen: me.isScreenShareEnabled };
    const state = this.room.state;
    this.reconnecting = state === ConnectionState.Reconnecting || state === ConnectionState.SignalReconnecting;
  };
}
