// Real browsers: Debian's Chromium by playwright-core, Debian's Firefox by puppeteer-core over WebDriver BiDi.
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';

export const chromiumPath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const firefoxPath = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

const chromiumParameters = [
  '--no-sandbox', '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream=fps=15', '--autoplay-policy=no-user-gesture-required',
  '--allow-loopback-in-peer-connection', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run',
  '--disable-features=WebRtcHideLocalIpsWithMdns,Translate,OptimizationHints,MediaRouter', '--auto-select-desktop-capture-source=Entire screen',
];

// hiding is a parameter as it is for who hides addresses, "" for none.
const hiding = (parameter) => (parameter.startsWith('--use-fake') ? '' : parameter.replace('WebRtcHideLocalIpsWithMdns,', ''));

const firefoxPreferences = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.cubeb.force_mock_context': true, // a machine without a sound card: without it no AudioContext ever starts
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.gmp-manager.url': '',
  'app.normandy.enabled': false,
  'app.update.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'browser.region.update.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'extensions.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'services.settings.server': 'data:,#remote-settings-dummy/v1',
  'toolkit.telemetry.server': '',
};

// launchChromium starts one browser; executable may be a wrapper that runs it in a namespace of its own. hidden has pages see names of mDNS in
// place of addresses, as for people who have not let them use a camera: there are no devices then.
export async function launchChromium({ executable = chromiumPath, secureOrigins = [], parameters = [], hidden = false } = {}) {
  const trusted = secureOrigins.length ? [`--unsafely-treat-insecure-origin-as-secure=${secureOrigins.join(',')}`] : [];
  const browser = await chromium.launch({ executablePath: executable, headless: true, args: [...chromiumParameters.map(hidden ? hiding : String).filter(Boolean), ...trusted, ...parameters] });
  return {
    name: 'chromium',
    version: browser.version(),
    // A context is a profile of its own; the page closes with it.
    async page() {
      const context = await browser.newContext({ viewport: { width: 1280, height: 720 } });
      const page = await context.newPage();
      return {
        page,
        close: () => context.close(),
        screenshot: (path) => page.screenshot({ path }),
        // A crash is not a close: no unload handler runs, nothing says goodbye.
        crash: async () => {
          const session = await context.newCDPSession(page);
          const crashed = new Promise((resolve) => page.once('crash', resolve));
          session.send('Page.crash').catch(() => {});
          await crashed;
        },
      };
    },
    close: () => browser.close(),
  };
}

export async function launchFirefox() {
  const browser = await puppeteer.launch({
    browser: 'firefox', executablePath: firefoxPath, headless: true, extraPrefsFirefox: firefoxPreferences, timeout: 60_000, protocolTimeout: 60_000,
  });
  return {
    name: 'firefox',
    version: await browser.version(),
    async page() {
      const context = await browser.createBrowserContext();
      const page = await context.newPage();
      await page.setViewport({ width: 1280, height: 720 });
      return { page, close: () => context.close(), screenshot: (path) => page.screenshot({ path }) };
    },
    close: () => browser.close(),
  };
}
