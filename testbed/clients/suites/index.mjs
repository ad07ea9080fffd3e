import { calls } from './calls.mjs';
import { media } from './media.mjs';
import { rooms } from './rooms.mjs';

export const allCases = [...calls, ...media, ...rooms];
