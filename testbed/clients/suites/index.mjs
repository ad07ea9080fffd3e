import { calls } from './calls.mjs';

export const allCases = [...calls];
