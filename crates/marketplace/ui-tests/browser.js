/** Chromium for the tests: where it is, how it starts, and what every page is watched for. */
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';
import { start } from './mock.js';

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** The browser's path, or undefined. */
export function executable() {
  const names = process.env.CHROMIUM ? [process.env.CHROMIUM] : ['chromium', 'chromium-browser', 'google-chrome'].flatMap((name) => (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, name)));
  return names.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Options for `describe`: skips without a browser, unless that is not allowed. */
export function needed() {
  if (executable()) return {};
  if (process.env.CROSSPOINT_REQUIRE_ALL === '1') throw new Error('no Chromium found: install it or set CHROMIUM');
  console.log('skipped: no Chromium found (install it or set CHROMIUM)');
  return { skip: 'no Chromium' };
}

export const launch = () => chromium.launch({ executablePath: executable(), args: FLAGS });

/** A folder for pictures; its path is printed once. */
export const pictures = (() => {
  let folder;
  return () => {
    if (!folder) {
      folder = process.env.CROSSPOINT_PICTURES ?? mkdtempSync(join(tmpdir(), 'crosspoint-ui-'));
      mkdirSync(folder, { recursive: true });
      console.log(`screenshots: ${folder}`);
    }
    return folder;
  };
})();

/**
 * A server and a page on it for one test; both end with it, and the test fails if the page did what no page may.
 * @param work gets the page and the server
 */
export async function visit(browser, { change, view = '', url, ...options }, work) {
  const server = await start(change);
  const tab = await open(browser, url?.(server) ?? `${server.url}${view && `#/${view}`}`, options);
  try {
    const out = await work(tab.page, server);
    await tab.fine();
    return out;
  } finally {
    await tab.close();
    server.close();
  }
}

/** A page that notes everything that must not happen: errors, violations of the policy, dialogs, requests elsewhere. */
async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 860 }, reducedMotion: 'reduce', locale: 'en-GB', timezoneId: 'UTC', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const wrong = [];
  page.on('pageerror', (error) => wrong.push(`error: ${error.message}`));
  page.on('dialog', (dialog) => { wrong.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('console', (message) => { if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) wrong.push(`console: ${message.text()}`); });
  page.on('request', (request) => { if (!request.url().startsWith('data:') && new URL(request.url()).origin !== new URL(url).origin) wrong.push(`request: ${request.url()}`); });
  await page.addInitScript(() => {
    window.violations = [];
    window.events = [];
    document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
    for (const name of ['ready', 'navigate', 'installed', 'updated', 'paused', 'resumed', 'uninstalled', 'connection-created', 'error']) {
      window.addEventListener(`crosspoint:${name}`, (event) => window.events.push([name, event.detail]));
    }
  });
  await page.goto(url);
  return {
    page, wrong,
    /** Throws if anything was noted. */
    async fine() {
      const all = [...wrong, ...await page.evaluate(() => window.violations)];
      if (all.length) throw new Error(all.join('\n'));
    },
    close: () => context.close(),
  };
}

/** What axe finds wrong, shadow roots included, by all rules or those given. The script goes in over the debugger, since the policy refuses it. */
export async function axe(page, rules) {
  if (!await page.evaluate(() => 'axe' in window)) {
    const session = await page.context().newCDPSession(page);
    await session.send('Runtime.evaluate', { expression: AXE });
    await session.detach();
  }
  const { violations } = await page.evaluate((only) => window.axe.run(document, { resultTypes: ['violations'], ...(only && { runOnly: only }) }), rules);
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.flat(3).join(' ') + ' ' + (node.any[0]?.message ?? '')).join(' | ')}`);
}
