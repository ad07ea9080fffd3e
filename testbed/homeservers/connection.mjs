// callserver's connection to a homeserver (signalling/homeserver) against real
// ones: Dendrite and Synapse with the registrations that callserver writes, and
// the package's own tests as the application service.
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";

import { repository } from "../process/cache.mjs";
import { freePorts, run, stopAll } from "../process/process.mjs";
import { ground } from "./ground.mjs";
import { peer } from "./homeserver.mjs";

after(stopAll); // what a start that failed left behind

for (const kind of ["dendrite", "synapse"]) {
  test(`the connection to ${kind}`, async (t) => {
    const { homeserver, directory, logs } = await ground(kind, "connection");
    const [port] = await freePorts(1);
    const url = `http://127.0.0.1:${port}`;
    const registrations = await homeserver.registrations(directory, url);
    try {
      await homeserver.start({ directory, logs, callserver: url, registrations: Object.values(registrations) });
      const users = [];
      for (const name of ["alice", "bob", "carol"]) users.push(await homeserver.register(name, `${name}-password`));
      const [alice, bob] = users;
      const rooms = [];
      for (const name of ["seen", "unseen"]) {
        const room = await alice.createRoom({ name, encrypted: false, invite: [bob] });
        await bob.join(room);
        rooms.push(room);
      }
      const world = join(directory, "world.json");
      const { delayedEvents } = await peer(kind);
      await writeFile(
        world,
        JSON.stringify({
          serverName: homeserver.name,
          clientAPI: homeserver.url,
          listen: `127.0.0.1:${port}`,
          registrations,
          delayedEvents,
          memberQuery: kind === "synapse",
          users: users.map(({ id, device, token }) => ({ id, device, token })),
          rooms,
        }),
      );
      // One package after the other: they share the homeserver, and one has the sender join the room that the first wants unseen.
      const command = ["go", "test", "-tags", "goolm", "-count=1", "-p=1", "-v", "-run", "^TestReal", "./signalling/homeserver", "./signalling/matrixrtc/leave", "./signalling/matrixrtc/roster"];
      t.diagnostic(await run(command, { cwd: repository, env: { CALLSERVER_TEST_HOMESERVER: world, CGO_ENABLED: "0" } }));
    } finally {
      await homeserver.stop();
      await rm(directory, { recursive: true, force: true });
    }
  });
}
