import { type Participant, type Room, Track } from 'livekit-client';

/** One picture on the page: a person, or the screen of one. */
export interface Tile {
  key: string;
  name: string;
  local: boolean;
  screen: boolean;
  muted: boolean;
  speaking: boolean;
  video: Track | undefined;
  audio: Track | undefined;
}

/** The tiles of a room: screens first, then oneself, then the others as they came. */
export function tiles(room: Pick<Room, 'localParticipant' | 'remoteParticipants'>): Tile[] {
  const people = [room.localParticipant, ...room.remoteParticipants.values()];
  return [...people.flatMap(screen), ...people.map(person)];
}

function person(p: Participant): Tile {
  const camera = p.getTrackPublication(Track.Source.Camera);
  const microphone = p.getTrackPublication(Track.Source.Microphone);
  return {
    key: p.identity,
    name: p.name || p.identity,
    local: p.isLocal,
    screen: false,
    muted: !microphone || microphone.isMuted,
    speaking: p.isSpeaking,
    video: camera && !camera.isMuted ? camera.track : undefined,
    audio: p.isLocal ? undefined : microphone?.track,
  };
}

function screen(p: Participant): Tile[] {
  const picture = p.getTrackPublication(Track.Source.ScreenShare);
  if (!picture || picture.isMuted) return [];
  const sound = p.getTrackPublication(Track.Source.ScreenShareAudio);
  return [
    {
      key: p.identity + '/screen',
      name: `${p.name || p.identity} (screen)`,
      local: p.isLocal,
      screen: true,
      muted: false,
      speaking: false,
      video: picture.track,
      audio: p.isLocal ? undefined : sound?.track,
    },
  ];
}
