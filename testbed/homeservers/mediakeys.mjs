// The media keys of a call in an encrypted room, at real homeservers: the code
// of matrix-js-sdk that Element Call runs on, against callserver's courier.
// Each side must end up with the key that the other seals its frames with.
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";

import { MatrixRTCSessionEvent } from "matrix-js-sdk/lib/matrixrtc/index.js";

import { repository } from "../process/cache.mjs";
import { eventually } from "../process/eventually.mjs";
import { run, stopAll } from "../process/process.mjs";
import { Client } from "./client.mjs";
import { ground } from "./ground.mjs";

after(async () => {
  await stopAll(); // what a start that failed left behind
  setTimeout(() => process.exit(), 1_000).unref(); // matrix-js-sdk leaves timers behind, of a call that it left
});

/** Joins a client to the call of a room, as Element Call does, and returns the keys that it uses and gets: identity, index and secret. */
function joinCall(client, room) {
  const session = client.sdk.matrixRTC.getRoomSession(client.sdk.getRoom(room));
  const keys = new Set();
  session.on(MatrixRTCSessionEvent.EncryptionKeyChanged, (key, index, _, identity) => keys.add(`${identity} ${index} ${Buffer.from(key).toString("hex")}`));
  const { id: userId, device: deviceId } = client.user;
  const focus = { type: "livekit", livekit_service_url: "https://rtc.example.org/livekit/jwt", livekit_alias: room };
  session.joinRTCSession({ userId, deviceId, memberId: `${userId}:${deviceId}` }, [focus], focus, { manageMediaKeys: true });
  return { session, keys };
}

for (const kind of ["dendrite", "synapse"]) {
  test(`media keys at ${kind}`, async () => {
    const { homeserver, directory, logs } = await ground(kind, "mediakeys");
    let client;
    try {
      const url = "http://127.0.0.1:9"; // nobody hears the events that are pushed
      const registrations = await homeserver.registrations(directory, url);
      await homeserver.start({ directory, logs, callserver: url, registrations: [registrations.narrow] });
      const alice = await homeserver.register("alice", "alice-password");
      const bot = { id: `@_callserver:${homeserver.name}` };
      client = await Client.start(alice);
      const room = await alice.createRoom({ name: "sealed", encrypted: true });
      await homeserver.joinSender(registrations.narrow, alice, room);
      await eventually("alice sees the room", 15_000, () => client.sdk.getRoom(room)?.hasEncryptionStateEvent() || undefined);
      const { session, keys } = joinCall(client, room);

      const world = join(directory, "world.json");
      await writeFile(world, JSON.stringify({ serverName: homeserver.name, clientAPI: homeserver.url, registrations, rooms: [room] }));
      const command = ["go", "test", "-tags", "goolm", "-count=1", "-v", "-run", "^TestReal", "./signalling/matrix/courier"];
      const output = await run(command, { cwd: repository, env: { CALLSERVER_TEST_HOMESERVER: world, CGO_ENABLED: "0" } });
      const theirs = [...output.matchAll(/key (\S+ \d+ [0-9a-f]+)/g)].map(([, key]) => key);
      // The client uses a key of its own a second after it was sent.
      for (const [whose, user] of Object.entries({ "the client's": alice, "the bot's": bot })) {
        await eventually(`${whose} key is the same on both sides`, 5_000, async (seen) => {
          seen({ theirs, keys: [...keys] });
          return theirs.some((key) => key.startsWith(user.id) && keys.has(key)) || undefined;
        });
      }
      await session.leaveRoomSession(5_000);
    } finally {
      client?.stop();
      await homeserver.stop();
      await rm(directory, { recursive: true, force: true });
    }
  });
}
