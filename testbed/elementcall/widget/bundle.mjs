// Bundles the widget host page, which needs the Matrix client library in a browser.
import { join } from "node:path";

import { cached, testbed } from "../../process/cache.mjs";

const sources = ["host.js", "driver.js"].map((name) => join(testbed, "elementcall", "widget", name));

/** Returns the directory that holds host.js for a browser. */
export function widgetHost() {
  return cached("widget-host", [join(testbed, "package-lock.json"), ...sources], async (directory) => {
    const { build } = await import("esbuild");
    await build({
      entryPoints: [sources[0]],
      outfile: join(directory, "host.js"),
      bundle: true,
      format: "esm",
      platform: "browser",
      target: "chrome120",
      define: { global: "globalThis" },
      logLevel: "warning",
    });
  });
}
