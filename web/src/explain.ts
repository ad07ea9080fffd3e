import { ConnectionError, ConnectionErrorReason, DisconnectReason } from 'livekit-client';

/** An error in words for the person on the call, who can do something about it. */
export function explain(error: unknown): string {
  if (error instanceof ConnectionError) return connection(error);
  const name = error instanceof Error ? error.name : '';
  switch (name) {
    case 'NotAllowedError':
      return 'The browser did not allow it. Allow microphone and camera for this page (the icon beside the address) and try again.';
    case 'NotFoundError':
    case 'OverconstrainedError':
      return 'No such device was found. Plug one in, or go on without it.';
    case 'NotReadableError':
      return 'The device is in use by another program. Close that program and try again.';
  }
  if (error instanceof Error && error.message) return error.message;
  return 'Something went wrong.';
}

function connection(error: ConnectionError): string {
  switch (error.reason) {
    case ConnectionErrorReason.NotAllowed:
      if (error.status === 404) return 'This room is not open. Ask somebody with an account here to open it.';
      return `The token was refused: ${error.message}`;
    case ConnectionErrorReason.ServerUnreachable:
      return 'The server cannot be reached. Check that it runs and that nothing blocks the way to it.';
    case ConnectionErrorReason.Timeout:
      return 'The server did not answer in time. Try again.';
    default:
      return `The connection failed: ${error.message}`;
  }
}

/** Why a call that was up has ended; empty if the person wanted it. */
export function farewell(reason?: DisconnectReason): string {
  switch (reason) {
    case DisconnectReason.CLIENT_INITIATED:
      return '';
    case DisconnectReason.DUPLICATE_IDENTITY:
      return 'You joined this room again in another window.';
    case DisconnectReason.SERVER_SHUTDOWN:
      return 'The server was stopped.';
    case DisconnectReason.PARTICIPANT_REMOVED:
      return 'You were removed from the room.';
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return 'The room was closed.';
    default:
      return 'The connection was lost. Join again to go on.';
  }
}

/** Why this browser cannot make calls from this page at all; empty if it can. */
export function hindrance(w: { isSecureContext: boolean; RTCPeerConnection?: unknown; navigator: { mediaDevices?: unknown } }): string {
  if (!w.RTCPeerConnection) return 'This browser has no WebRTC.';
  if (!w.isSecureContext || !w.navigator.mediaDevices) return 'Browsers give microphone and camera to https pages and to this machine only. Open the page at localhost, or behind https.';
  return '';
}
