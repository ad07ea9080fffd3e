import { calls } from './calls.mjs';
import { legs } from './legs.mjs';
import { media } from './media.mjs';
import { native } from './native.mjs';
import { resilience } from './resilience.mjs';
import { rooms } from './rooms.mjs';

export const allCases = [...calls, ...media, ...rooms, ...legs, ...native, ...resilience];
