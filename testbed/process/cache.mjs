// The cache holds what the testbed built or installed: one directory a thing,
// named after the content of its inputs, so that a change of version builds
// anew and a stale build is never used. It lies in .cache at the top of the
// repository, which git ignores.
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { run } from "./process.mjs";

/** The top of the repository. */
export const repository = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** The testbed's own directory. */
export const testbed = join(repository, "testbed");

/** Screenshots and logs of the last run; git ignores it. */
export const outputs = join(testbed, "out");

const cache = join(repository, ".cache", "testbed");

const exists = (path) => stat(path).then(() => true, () => false);

/**
 * Returns the directory that `build` filled for exactly these input files, filling it if need be.
 * A build that fails leaves nothing behind that the next run would take for complete.
 * @param {string} name what is built, for the directory and the message
 * @param {string[]} inputs files whose content decides
 * @param {(directory: string) => Promise<void>} build
 */
export async function cached(name, inputs, build) {
  const hash = createHash("sha256");
  for (const input of inputs) hash.update(await readFile(input));
  const directory = join(cache, `${name}-${hash.digest("hex").slice(0, 12)}`);
  const complete = join(directory, ".complete");
  if (await exists(complete)) return directory;
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  say(`building ${name} (once)`);
  await build(directory);
  await writeFile(complete, "");
  return directory;
}

/** Installs the npm packages of the lock file, unless they are installed already. */
export async function npmPackages() {
  const lock = join(testbed, "package-lock.json");
  const installed = join(testbed, "node_modules", ".lock-installed");
  const wanted = await readFile(lock, "utf8");
  if ((await readFile(installed, "utf8").catch(() => "")) === wanted) return;
  say("installing the npm packages of the testbed (once)");
  await run(["npm", "ci", "--ignore-scripts", "--no-progress"], { cwd: testbed });
  await writeFile(installed, wanted);
}

/** Builds a command of this repository and returns the program's path; Go's own cache makes it quick. */
export async function goProgram(packagePath) {
  const directory = join(cache, "bin");
  await mkdir(directory, { recursive: true });
  const program = join(directory, packagePath.split("/").pop());
  await run(["go", "build", "-tags", "goolm", "-o", program, `./${packagePath}`], {
    cwd: repository,
    env: { CGO_ENABLED: "0" },
  });
  return program;
}

/** Prints one line of progress. */
export function say(text) {
  console.log(`${new Date().toISOString().slice(11, 19)} ${text}`);
}
