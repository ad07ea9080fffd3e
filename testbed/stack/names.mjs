// The names that MSC4195 gives to calls and participants, computed anew here: tests compare them with callserver's.
import { createHash } from "node:crypto";

/** SHA-256 over canonical JSON in base64 without padding; only for strings that need no escaping. */
export const hash = (...strings) => createHash("sha256").update(JSON.stringify(strings)).digest("base64").replace(/=+$/, "");

/** The one slot that Element Call uses. */
export const slot = "m.call#ROOM";

/** The SFU's name of the call in a Matrix room. */
export const callName = (room) => hash(room, slot);
