// The authoriser against real homeservers, without a browser: Dendrite and
// Synapse check the OpenID tokens that they gave, by federation over TLS, and
// the tokens for the SFU name whom and what they should.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

import { outputs } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { stopAll } from "../process/process.mjs";
import { callName, hash, slot } from "../stack/names.mjs";
import { Stack } from "../stack/stack.mjs";
import { peer } from "./homeserver.mjs";

const kinds = ["dendrite", "synapse"];
const stacks = {};

before(async () => {
  for (const kind of kinds) {
    await (await peer(kind)).prepare();
    const logs = join(outputs, `homeservers-${kind}`);
    await rm(logs, { recursive: true, force: true });
    await mkdir(logs, { recursive: true });
    stacks[kind] = await Stack.start({ kind, logs, names: ["alice", "bob"], rooms: { call: { encrypted: false } } });
  }
});
after(async () => {
  for (const stack of Object.values(stacks)) await stack.stop();
  await stopAll(); // what a start that failed left behind
});

/** Checks the signature of an access token for the SFU and returns its claims. */
function claims({ key }, jwt) {
  const [head, body, signature] = jwt.split(".");
  const wanted = createHmac("sha256", key.secret).update(`${head}.${body}`).digest("base64url");
  assert.equal(signature, wanted, "signed with the configured secret");
  const claims = JSON.parse(Buffer.from(body, "base64url"));
  assert.equal(claims.iss, key.name);
  return claims;
}

async function post(stack, path, body) {
  const response = await fetch(`${stack.serviceURL}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", origin: "http://alice.localhost" },
    body: JSON.stringify(body),
  });
  assert.equal(response.headers.get("access-control-allow-origin"), "*", `${path} ${response.status} has CORS headers`);
  return { status: response.status, body: await response.json() };
}

const first = (rooms) => Object.values(rooms)[0];

const sfuGet = async (stack, user, token) =>
  post(stack, "/sfu/get", { room: first(stack.rooms), openid_token: token ?? (await user.openID()), device_id: user.device });

const getToken = async (stack, user, member = {}) =>
  post(stack, "/get_token", {
    room_id: first(stack.rooms),
    slot_id: slot,
    openid_token: await user.openID(),
    member: { id: "the-member", claimed_user_id: user.id, claimed_device_id: user.device, ...member },
  });

for (const kind of kinds) {
  describe(kind, () => {
    let stack, alice, bob;
    before(() => {
      stack = stacks[kind];
      [alice, bob] = stack.users;
    });

    test("a user's OpenID token becomes a token under user and device", async () => {
      const { status, body } = await sfuGet(stack, alice);
      assert.equal(status, 200, JSON.stringify(body));
      const { sub, video } = claims(stack, body.jwt);
      assert.equal(sub, `${alice.id}:${alice.device}`);
      assert.equal(video.room, callName(first(stack.rooms)));
      assert.equal(video.roomJoin, true);
      assert.equal(body.url, `${stack.callserverURL.replace("http", "ws")}/livekit/sfu`);
    });

    test("the newer endpoint gives the hashed identity in the same room", async () => {
      const { status, body } = await getToken(stack, bob);
      assert.equal(status, 200, JSON.stringify(body));
      const { sub, video } = claims(stack, body.jwt);
      assert.equal(sub, hash(bob.id, bob.device, "the-member"));
      assert.equal(video.room, callName(first(stack.rooms)));
    });

    test("the SFU takes the token", async () => {
      const { body } = await sfuGet(stack, alice);
      const url = `${body.url.replace("ws", "http")}/rtc/validate?access_token=${body.jwt}`;
      const response = await fetch(url);
      assert.equal(response.status, 200, await response.text());
    });

    test("a made-up OpenID token is refused", async () => {
      const token = { ...(await alice.openID()), access_token: "made-up" };
      const { status, body } = await sfuGet(stack, alice, token);
      assert.deepEqual([status, body.errcode], [401, "M_UNAUTHORIZED"]);
    });

    test("another user's name is refused", async () => {
      const { status, body } = await getToken(stack, alice, { claimed_user_id: bob.id });
      assert.deepEqual([status, body.errcode], [401, "M_UNAUTHORIZED"]);
    });

    test("a user of a homeserver that is not configured, at a private address, is refused", async () => {
      const stranger = stacks[kinds.find((other) => other !== kind)].users[0];
      const { status, body } = await sfuGet(stack, stranger);
      assert.deepEqual([status, body.errcode], [401, "M_UNAUTHORIZED"]);
    });

    for (const prefix of ["unstable/org.matrix.msc4143", "v1"]) {
      test(`the transports are found at the homeserver's own address under ${prefix}`, async () => {
        const answer = await alice.request("GET", `${prefix}/rtc/transports`);
        assert.deepEqual(answer.rtc_transports, [
          {
            type: "livekit",
            livekit_service_url: stack.serviceURL,
            url: `${stack.callserverURL.replace("http", "ws")}/livekit/sfu`,
          },
        ]);
      });
    }

    test("the well-known document names the same service", async () => {
      const response = await fetch(`${stack.homeserver.url}/.well-known/matrix/client`);
      const foci = (await response.json())["org.matrix.msc4143.rtc_foci"];
      assert.deepEqual(foci, [{ type: "livekit", livekit_service_url: stack.serviceURL }]);
    });

    test("the delegation probe is answered 404 only where nothing can be delegated", async () => {
      const { delayedEvents } = await peer(kind);
      await eventually("the probe's answer", 30_000, async (seen) => {
        const { status } = await post(stack, "/delegate_delayed_leave", {});
        seen(status);
        return status === (delayedEvents ? 400 : 404) || undefined;
      });
    });
  });
}
