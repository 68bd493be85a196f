/** Every screen in light and dark and at 320 pixels: what axe says, what overflows, and how it looks. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { join } from 'node:path';
import { axe, launch, needed, pictures, visit } from './browser.js';
import { IDS } from './data.js';

const connect = async (page) => {
  await page.getByLabel('API key', { exact: true }).fill('key-4711-9');
  await page.getByRole('button', { name: 'Connect', exact: true }).click();
  await page.getByText('The connection works').waitFor();
};
const configure = async (page) => {
  await connect(page);
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByRole('heading', { name: 'Configure' }).waitFor();
};
const add = (page, group) => page.getByRole('group', { name: group }).getByRole('button', { name: 'Add' });

/** Screens: a view, and what is done there before looking. */
const SCREENS = [
  ['catalogue', 'catalogue', (page) => page.getByText('Stock watch').waitFor()],
  ['catalogue-none', 'catalogue', (page) => page.getByRole('searchbox').fill('zzz')],
  ['integration', 'catalogue/order-alerts', (page) => page.getByRole('button', { name: 'Install' }).waitFor()],
  ['connect', 'install/order-alerts', connect],
  ['configure', 'install/order-alerts', async (page) => {
    await configure(page);
    await page.getByRole('radio', { name: /Email/ }).check();
    await page.getByLabel('Use this').check();
    for (const group of ['Recipients', 'Tags', 'Labels']) await add(page, group).click();
    await page.getByRole('combobox', { name: 'Channel' }).click();
    await page.getByRole('option', { name: '#orders' }).waitFor();
  }],
  ['errors', 'install/order-alerts', async (page) => {
    await configure(page);
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByText('2 things need a look').waitFor();
  }],
  ['review', 'install/crm-sync', async (page) => {
    await page.getByRole('radio').check();
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByRole('button', { name: 'Install CRM sync' }).waitFor();
  }],
  ['installed', 'installed', (page) => page.getByText('CRM sync').waitFor()],
  ['installation', `installed/${IDS.export}`, async (page) => {
    await page.getByRole('button', { name: /^Details: Export/ }).nth(2).click();
    await page.getByText('34 orders were written').waitFor();
  }],
  ['attention', `installed/${IDS.crm}`, (page) => page.getByText('Check your connections').waitFor()],
  ['settings', `installed/${IDS.export}/settings`, (page) => page.getByRole('button', { name: 'Save changes' }).waitFor()],
  ['uninstall', `installed/${IDS.export}/settings`, async (page) => {
    await page.getByRole('button', { name: 'Uninstall' }).click();
    await page.getByRole('dialog').waitFor();
  }],
  ['connections', 'connections', async (page) => {
    await page.getByRole('button', { name: 'Reconnect: Sales team' }).click();
    await page.getByLabel('User name').waitFor();
  }],
  ['missing', 'installed/nothing', (page) => page.getByRole('alert').waitFor()],
];

describe('screens', { concurrency: 3, ...needed() }, () => {
  let browser;
  before(async () => { browser = await launch(); });
  after(() => browser?.close());

  const overflow = (page) => page.evaluate(() => {
    const { shadowRoot } = document.querySelector('crosspoint-marketplace');
    const wide = [...shadowRoot.querySelectorAll('*')].filter((node) => {
      const { left, right, width } = node.getBoundingClientRect();
      return width > 1 && (right > innerWidth + 1 || left < -1);
    });
    return [document.documentElement.scrollWidth - innerWidth, ...wide.map((node) => `${node.tagName}.${node.className}`)];
  });

  for (const [name, view, act] of SCREENS) {
    test(`axe in light and dark, 320 pixels: ${name}`, () => visit(browser, { view, colorScheme: 'light' }, async (page) => {
      await act(page);
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme });
        // A theme changes colours and nothing else.
        assert.deepEqual(await axe(page, colorScheme === 'dark' ? ['color-contrast', 'link-in-text-block'] : undefined), [], colorScheme);
        await page.screenshot({ path: join(pictures(), `${name}-${colorScheme}.png`), fullPage: true });
      }
      await page.setViewportSize({ width: 320, height: 720 });
      await page.screenshot({ path: join(pictures(), `${name}-narrow.png`), fullPage: true });
      assert.deepEqual(await overflow(page), [0]);
    }));
  }

  test('long names wrap', () => visit(browser, {
    viewport: { width: 320, height: 720 },
    change: (state) => {
      state.offers[1].title = `Nightly${'verylong'.repeat(12)}`;
      state.executions[3].failure.message = 'm'.repeat(200);
      state.connections[0].label = 'L'.repeat(90);
    },
  }, async (page) => {
    for (const [view, word] of [['catalogue', 'Stock watch'], ['installed', 'CRM sync'], ['connections', 'Used by'], [`installed/${IDS.export}`, 'Executions']]) {
      await page.evaluate((to) => document.querySelector('crosspoint-marketplace').navigate(to), view);
      await page.getByText(word).first().waitFor();
      assert.deepEqual(await overflow(page), [0], view);
    }
  }));

  test('axe can fail here', () => visit(browser, {}, async (page) => {
    await page.getByRole('searchbox').waitFor();
    await page.evaluate(() => document.querySelector('crosspoint-marketplace').shadowRoot.querySelector('.view').append(document.createElement('button'), document.createElement('input')));
    const found = (await axe(page)).map((line) => line.split(':')[0]);
    assert.ok(found.includes('button-name') && found.includes('label'), found.join());
  }));

  test('right to left, and in German, inside a host page', () => visit(browser, {
    url: (server) => server.embedded({ dir: 'rtl', view: `installed/${IDS.export}`, lang: 'de', theme: 'dark' }),
  }, async (page) => {
    await page.getByText('Ausführungen').first().waitFor();
    await page.screenshot({ path: join(pictures(), 'rtl-german-dark.png'), fullPage: true });
    assert.deepEqual(await axe(page), []);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0);
  }));

  test('a host’s theme reaches everything', () => visit(browser, {
    url: (server) => server.embedded({ view: 'catalogue/order-alerts', theme: 'light' }),
  }, async (page) => {
    const button = page.getByRole('button', { name: 'Install' });
    await button.waitFor();
    await page.evaluate(() => {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync('crosspoint-marketplace { --cp-accent: rgb(0, 90, 60); --cp-radius: 2px; } crosspoint-marketplace::part(primary) { text-transform: uppercase; }');
      document.adoptedStyleSheets = [sheet];
    });
    assert.deepEqual(await button.evaluate((node) => [getComputedStyle(node).backgroundColor, getComputedStyle(node).textTransform]), ['rgb(0, 90, 60)', 'uppercase']);
  }));
});
