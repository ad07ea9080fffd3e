// What the testbed needs of the system, installed from Debian where it is
// missing and we may; otherwise the error is the command to run.
import { say } from "./cache.mjs";
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
