// Access tokens of the LiveKit format, made by the tests themselves: what a token of ours may say, not what callserver mints.
import { createHmac } from 'node:crypto';

const encode = (value) => Buffer.from(value).toString('base64url');

// mint signs a token (HS256) that lets identity into room; video overrides or adds grants, seconds is its life.
export function mint({ key, secret }, { identity, room, name, metadata, attributes, video = {}, seconds = 3600 }) {
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: key, sub: identity, nbf: now - 10, exp: now + seconds, name, metadata, attributes,
    video: { roomJoin: true, room, canPublish: true, canSubscribe: true, canUpdateOwnMetadata: true, ...video },
  };
  const body = `${encode('{"alg":"HS256","typ":"JWT"}')}.${encode(JSON.stringify(claims))}`;
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}
