// What the testbed needs of the system, installed from Debian where it is
// missing and we may; otherwise the error is the command to run.
import { join } from "node:path";

import { cached, say } from "./cache.mjs";
import { run } from "./process.mjs";

/**
 * Installs a Debian package unless the command says that it is there.
 * @param {string} name the Debian package
 * @param {string[]} proof a command that succeeds when the package is usable
 */
export async function debianPackage(name, proof) {
  try {
    await run(proof);
    return;
  } catch (error) {
    if (process.getuid() !== 0) throw new Error(`${name} is missing (${proof.join(" ")} failed): run sudo apt-get install ${name}`, { cause: error });
  }
  say(`installing ${name} from Debian (once)`);
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  await run(["apt-get", "update"], { env });
  await run(["apt-get", "install", "--yes", "--no-install-recommends", name], { env });
  await run(proof);
}

/**
 * Returns a server program of a Debian package, unpacked into the cache: an installed package would start it.
 * @param {string} name the Debian package
 * @param {string} path of the program in the package
 * @param {string[]} proof arguments with which the program ends well
 */
export async function debianProgram(name, path, proof) {
  const directory = await cached(name, [import.meta.filename], async (directory) => {
    const download = () => run(["apt-get", "download", name], { cwd: directory });
    await download().catch(async () => {
      await run(["apt-get", "update"]); // the lists are not there, or too old
      await download();
    });
    await run(["sh", "-ec", "dpkg-deb -x *.deb . && rm *.deb"], { cwd: directory });
  });
  const program = join(directory, path);
  await run([program, ...proof]);
  return program;
}
