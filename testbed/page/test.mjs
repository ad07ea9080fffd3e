// The page that callserver serves, as a newcomer meets it: the server without configuration, two windows, one room.
//
//   node --test-reporter=spec testbed/page/test.mjs
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { debianPackage } from "../process/debian.mjs";
import { goProgram, npmPackages } from "../process/cache.mjs";
import { Process, stopAll } from "../process/process.mjs";

let browser, directory, base, alice, bob;

before(async () => {
  await npmPackages();
  await debianPackage("chromium", ["chromium", "--version"]);
  const { chromium } = await import("playwright-core");
  directory = await mkdtemp(join(tmpdir(), "callserver-page-"));
  const server = new Process("callserver", [await goProgram("cmd/callserver")], {
    log: join(directory, "server.log"),
    env: {
      CALLSERVER_HTTP_LISTEN: "127.0.0.1:0",
      CALLSERVER_ADMIN_LISTEN: "off",
      CALLSERVER_MEDIA_UDP_PORT: "0",
      CALLSERVER_MEDIA_TCP_PORT: "0",
    },
  });
  base = (await server.line(/for=clients at=(\S+)/))[1];
  await server.line(/msg=ready/);
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--use-fake-ui-for-media-stream",
      "--use-fake-device-for-media-stream",
      "--allow-loopback-in-peer-connection",
      "--auto-select-desktop-capture-source=Entire screen",
      "--disable-background-networking",
      "--no-first-run",
    ],
  });
}, { timeout: 300_000 });

after(async () => {
  await browser?.close();
  await stopAll();
  await rm(directory, { recursive: true, force: true });
});

/** Opens the page in a profile of its own and joins the room that the link names. */
async function enter(name) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`${base}/#caf%C3%A9`);
  await page.getByLabel("Your name").fill(name);
  assert.equal(await page.getByLabel("Room").inputValue(), "café");
  await page.getByRole("button", { name: "Join" }).click();
  await page.getByRole("button", { name: "Leave" }).waitFor();
  return page;
}

/** The tile that carries a caption. */
const tile = (page, caption) => page.locator("figure", { has: page.locator("figcaption", { hasText: caption }) });

/** Waits until the picture of a tile moves. */
async function moves(page, caption) {
  const video = tile(page, caption).locator("video");
  await video.waitFor();
  const start = await video.evaluate((v) => v.currentTime);
  await page.waitForFunction(([v, t]) => v.videoWidth > 0 && v.currentTime > t + 1, [await video.elementHandle(), start], { timeout: 20_000 });
}

test("two windows in one room see each other", { timeout: 60_000 }, async () => {
  alice = await enter("Alice");
  bob = await enter("Bob");
  await Promise.all([moves(alice, "Bob"), moves(bob, "Alice"), moves(bob, "Bob")]);
});

test("muting shows on the other side", { timeout: 30_000 }, async () => {
  await tile(bob, "Alice").getByLabel("muted").waitFor({ state: "detached" });
  await alice.getByRole("button", { name: "Mute" }).click();
  await tile(bob, "Alice").getByLabel("muted").waitFor();
  await alice.getByRole("button", { name: "Unmute" }).click();
  await tile(bob, "Alice").getByLabel("muted").waitFor({ state: "detached" });
});

test("a camera that is off shows a name, not a frozen picture", { timeout: 30_000 }, async () => {
  await alice.getByRole("button", { name: "Camera off" }).click();
  await tile(bob, "Alice").locator("video").waitFor({ state: "detached" });
  await alice.getByRole("button", { name: "Camera on" }).click();
  await moves(bob, "Alice");
});

test("a shared screen arrives and goes", { timeout: 30_000 }, async () => {
  await alice.getByRole("button", { name: "Share screen" }).click();
  await tile(bob, "Alice (screen)").locator("video").waitFor();
  await alice.getByRole("button", { name: "Stop sharing" }).click();
  await tile(bob, "Alice (screen)").waitFor({ state: "detached" });
});

test("a reload is the same person again, once", { timeout: 30_000 }, async () => {
  await alice.reload();
  await alice.getByRole("button", { name: "Join" }).click();
  await alice.getByRole("button", { name: "Leave" }).waitFor();
  await moves(bob, "Alice");
  assert.equal(await tile(bob, "Alice").count(), 1);
});

test("who leaves is gone", { timeout: 30_000 }, async () => {
  await alice.getByRole("button", { name: "Leave" }).click();
  await alice.getByRole("heading", { name: "Join a room" }).waitFor();
  await tile(bob, "Alice").waitFor({ state: "detached" });
});

test("a server that is gone is said", { timeout: 60_000 }, async () => {
  await stopAll();
  await alice.getByRole("button", { name: "Join" }).click();
  await alice.getByRole("alert").waitFor();
});
