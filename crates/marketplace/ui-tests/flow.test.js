/** The whole way with the keyboard alone: install, watch it run, pause, uninstall; and what may go wrong on it. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { join } from 'node:path';
import { launch, needed, pictures, visit } from './browser.js';
import { IDS } from './data.js';

describe('flow', { concurrency: 3, ...needed() }, () => {
  let browser;
  before(async () => { browser = await launch(); });
  after(() => browser?.close());

  const run = (name, work, options = {}) => test(name, () => visit(browser, options, work));
  const heading = (page, name) => page.getByRole('heading', { name, level: 2 }).waitFor();
  /** Tabs on until the focus is on what has this name. */
  const reach = async (page, name, key = 'Tab') => {
    for (let tries = 0; tries < 60; tries += 1) {
      await page.keyboard.press(key);
      const at = await page.evaluate(() => {
        const node = document.querySelector('crosspoint-marketplace').shadowRoot.activeElement;
        const label = node?.labels?.[0]?.firstChild?.textContent;
        return node ? [label ?? node.getAttribute('aria-label') ?? node.textContent.trim(), node.tagName] : ['', ''];
      });
      if (at[0] === name) return;
    }
    assert.fail(`${name} is not reached by ${key}`);
  };
  const events = (page) => page.evaluate(() => window.events.map(([name]) => name));

  run('installs, follows executions, pauses and uninstalls by keyboard', async (page, server) => {
    await heading(page, 'Connect your tools');
    await reach(page, 'Order alerts');
    await page.keyboard.press('Enter');
    await heading(page, 'Order alerts');
    assert.equal(await page.evaluate(() => document.querySelector('crosspoint-marketplace').shadowRoot.activeElement?.tagName), 'H2', 'the focus follows');
    await reach(page, 'Install');
    await page.keyboard.press('Enter');
    await heading(page, 'Set up Order alerts');

    // Nothing is connected yet: going on says so, connecting with a wrong key says that.
    await reach(page, 'Continue');
    await page.keyboard.press('Enter');
    await page.getByText('One thing needs a look').waitFor();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await reach(page, 'API key');
    await page.keyboard.type('short');
    await page.keyboard.press('Enter');
    await page.getByText('API key: must have at least 8 characters').waitFor();
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.keyboard.press('ControlOrMeta+a');
    await page.keyboard.type('key-4711-9');
    await page.keyboard.press('Enter');
    await page.getByText('The connection works (120 ms).').waitFor();
    await reach(page, 'Continue');
    await page.keyboard.press('Enter');

    await page.getByRole('heading', { name: 'Configure' }).waitFor();
    await reach(page, 'Channel');
    await page.keyboard.type('#sal');
    await page.waitForFunction(() => document.querySelector('crosspoint-marketplace').shadowRoot.querySelectorAll('[role=option]').length === 1);
    await page.getByRole('option', { name: '#sales' }).waitFor();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    assert.equal(await page.getByRole('combobox', { name: 'Channel' }).inputValue(), '#sales');
    await reach(page, 'Minimum amount');
    await page.keyboard.press('ControlOrMeta+a');
    await page.keyboard.type('52');
    await reach(page, 'Nobody');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Review' }).waitFor();
    await reach(page, 'Install Order alerts');
    await page.keyboard.press('Enter');

    // The server finds what the browser cannot know, and the form says it where it is.
    await page.getByRole('button', { name: 'Minimum amount: must be a multiple of 5' }).waitFor();
    assert.equal(await page.getByLabel('Minimum amount').getAttribute('aria-invalid'), 'true');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.keyboard.press('ControlOrMeta+a');
    await page.keyboard.type('55');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Review' }).waitFor();
    await reach(page, 'Install Order alerts');
    await page.keyboard.press('Enter');
    await page.keyboard.press('Enter');

    await heading(page, 'Order alerts');
    await page.getByText('Order alerts is installed.').waitFor();
    assert.equal(server.state.installations.filter((one) => one.integration === 'order-alerts').length, 1, 'two clicks, one installation');
    const sent = server.calls.find((call) => call.method === 'POST' && call.path === 'installations' && call.body.config.threshold === 55).body;
    assert.equal(sent.config.channel, 'C101');
    assert.equal(sent.config.mention, 'channel');
    assert.deepEqual(sent.config.delivery, { kind: 'chat' });
    assert.equal(sent.config.schema_version, 2);
    assert.deepEqual(sent.config.events, ['created']);
    assert.ok(!('signing_secret' in sent.config) && !('quiet_hours' in sent.config));

    // The execution that the installation started is followed to its end without a hand.
    await page.getByRole('cell', { name: 'Done' }).waitFor();
    await reach(page, await page.getByRole('button', { name: /^Details: Announce/ }).getAttribute('aria-label'));
    await page.keyboard.press('Enter');
    await page.getByText('3 orders were announced in #orders.').waitFor();

    await reach(page, 'Pause', 'Shift+Tab');
    await page.keyboard.press('Enter');
    await page.getByText('Order alerts is paused.').waitFor();
    await page.keyboard.press('Enter');
    await page.getByText('Order alerts runs again.').waitFor();
    await reach(page, 'Settings');
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Save changes' }).waitFor();
    await reach(page, 'Uninstall');
    await page.keyboard.press('Enter');
    await page.getByRole('dialog', { name: 'Uninstall Order alerts?' }).waitFor();
    await page.screenshot({ path: join(pictures(), 'uninstall.png') });
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    assert.equal(server.state.installations.length, 3, 'the safe answer has the focus');
    await page.keyboard.press('Enter');
    await page.getByRole('dialog').waitFor();
    await reach(page, 'Uninstall', 'Shift+Tab');
    await page.keyboard.press('Enter');
    await heading(page, 'Installed integrations');
    await page.getByText('Order alerts is uninstalled.').waitFor();
    assert.equal(server.state.installations.length, 2);
    assert.deepEqual((await events(page)).filter((name) => name !== 'navigate'), ['ready', 'connection-created', 'installed', 'paused', 'resumed', 'uninstalled']);
    const details = await page.evaluate(() => window.events.map(([, detail]) => detail));
    for (const detail of details) assert.ok(Object.keys(detail).every((key) => ['id', 'integration', 'connector', 'view', 'code'].includes(key)), JSON.stringify(detail));
  });

  run('a key that the provider refuses is said in words and can be replaced', async (page) => {
    await page.getByLabel('API key', { exact: true }).fill('wrong');
    await page.getByRole('button', { name: 'Connect', exact: true }).click();
    await page.getByText('The connection does not work. Chatterbox answered 401: the key is not known.').waitFor();
    await page.getByText('Reconnect needed').waitFor();
    await page.getByRole('button', { name: 'Reconnect' }).click();
    await page.getByLabel('API key', { exact: true }).fill('right and long');
    await page.getByRole('button', { name: 'Reconnect', exact: true }).last().click();
    await page.getByText('The connection works (120 ms).').waitFor();
    assert.equal(await page.getByRole('radio').count(), 1);
    await page.getByRole('button', { name: 'Use another account' }).click();
    await page.getByLabel('Way to sign in').selectOption('User name and password');
    await page.getByLabel('User name').fill('ann');
    await page.getByLabel('Password').fill('long enough');
    await page.getByRole('button', { name: 'Connect', exact: true }).click();
    await page.getByText('The connection works (120 ms).').waitFor();
    assert.equal(await page.getByRole('radio').count(), 2);
  }, { view: 'install/order-alerts' });

  run('settings: saved with their revision; a conflict keeps what was entered', async (page, server) => {
    const folder = page.getByLabel('Folder');
    await folder.fill('accounts');
    server.state.installations[0].revision += 1;
    server.state.installations[0].config.separator = 'semicolon';
    await page.getByRole('button', { name: 'Save changes' }).click();
    await page.getByText('Somebody else has changed this in the meantime.').waitFor();
    assert.equal(await folder.inputValue(), 'accounts');
    assert.equal(server.state.installations[0].config.folder, 'exports');
    await page.getByRole('button', { name: 'Save mine over them' }).click();
    await page.getByText('The settings are saved.').waitFor();
    assert.equal(server.state.installations[0].config.folder, 'accounts');
    assert.ok((await events(page)).includes('updated'));
    await folder.fill('lost');
    server.state.installations[0].revision += 1;
    server.state.installations[0].config.folder = 'theirs';
    await page.getByRole('button', { name: 'Save changes' }).click();
    await page.getByRole('button', { name: 'Show the present settings' }).click();
    await page.waitForFunction(() => [...document.querySelector('crosspoint-marketplace').shadowRoot.querySelectorAll('input')].some((input) => input.value === 'theirs'));
  }, { view: `installed/${IDS.export}/settings` });

  run('executions: cancel, run again, run now, and why one waits', async (page, server) => {
    await page.getByText('The provider cannot be reached. Next attempt in 1 minute.').waitFor();
    await page.getByRole('button', { name: /^Cancel: Export/ }).first().click();
    await page.getByText('It has been told to stop.').waitFor();
    await page.getByRole('cell', { name: 'Stopping' }).waitFor();
    await page.getByRole('button', { name: /^Run again: Export/ }).first().click();
    await page.getByText('It has been started again.').waitFor();
    assert.ok(server.state.executions.some((one) => one.origin.replay));
    await page.getByRole('button', { name: 'Run now' }).click();
    await page.getByText('“Export” has been started.').waitFor();
    assert.ok(server.calls.some((call) => call.path === `installations/${IDS.export}/flows/export/start`));
  }, { view: `installed/${IDS.export}` });

  run('executions: repeated with the settings of that time, remembering nothing', async (page, server) => {
    const [first] = server.state.executions.filter((one) => one.installation === IDS.export && one.status === 'succeeded');
    first.revision = 3;
    await page.reload();
    await page.getByRole('button', { name: /^Run again with…: Export/ }).first().click();
    const dialog = page.getByRole('dialog');
    await dialog.getByText('Whatever it does outside happens either way.').waitFor();
    await dialog.getByLabel('Settings').selectOption({ label: 'As they were then' });
    await dialog.getByLabel('What it remembers').selectOption({ label: 'Throw it away' });
    await dialog.getByRole('button', { name: 'Run again' }).click();
    await page.getByText('It has been started again.').waitFor();
    assert.equal(await page.getByRole('dialog').count(), 0);
    const call = server.calls.findLast((one) => one.path.endsWith('/replay'));
    assert.deepEqual(call.body, { config: 'original', state: 'discard' });
    await page.reload();
    await page.getByRole('button', { name: /^Details: Export/ }).first().click();
    await page.getByText('Repeats an earlier execution. It runs with the settings of that time. What it remembers is thrown away.').waitFor();
  }, { view: `installed/${IDS.export}` });

  run('executions: settings that are not known or not kept are not repeated', async (page, server) => {
    const mine = server.state.executions.filter((one) => one.installation === IDS.export && one.status === 'succeeded');
    mine.forEach((one) => { delete one.revision; });
    await page.reload();
    await page.getByRole('button', { name: /^Run again with…: Export/ }).first().click();
    const dialog = page.getByRole('dialog');
    await dialog.getByText('With which settings it ran is not known.').waitFor();
    assert.equal(await dialog.getByLabel('Settings').locator('option').count(), 1);
    server.state.configGone = true;
    await dialog.getByRole('button', { name: 'Run again' }).click();
    await dialog.getByText('The settings that it ran with are not kept any more.').waitFor();
    await dialog.getByRole('button', { name: 'Cancel' }).click();
  }, { view: `installed/${IDS.export}` });

  run('one schedule rests and goes on, apart from the installation', async (page, server) => {
    await page.getByRole('button', { name: 'Pause: Export' }).click();
    await page.getByText('“Export” is paused. What it would have run is not made up for.').waitFor();
    await page.getByText(/paused now|paused \d+ second|paused this/).first().waitFor();
    assert.equal(server.state.installations.find((one) => one.id === IDS.export).state, 'active');
    await page.reload();
    await page.getByRole('button', { name: 'Resume: Export' }).click();
    await page.getByText('“Export” runs again at its next time.').waitFor();
    await page.getByRole('button', { name: 'Pause: Export' }).waitFor();
    assert.deepEqual(server.calls.filter((call) => call.path.includes('/schedules/')).map((call) => call.path),
      ['pause', 'resume'].map((verb) => `installations/${IDS.export}/schedules/export/${verb}`));
  }, { view: `installed/${IDS.export}` });

  run('executions: how far one is, while it runs', async (page, server) => {
    const one = server.state.executions.find((other) => other.installation === IDS.export);
    Object.assign(one, { status: 'running', frozen: true, finished: null, failure: null, progress: { at: new Date().toISOString(), done: 1200, total: 4800, text: 'orders <b>read</b>' } });
    await page.reload();
    await page.getByText('1,200 of 4,800 · orders <b>read</b>').waitFor();
    assert.equal(await page.getByLabel('How far it is').evaluate((bar) => bar.position), 0.25);
    one.progress = { at: new Date().toISOString(), text: 'tidying up' };
    await page.getByText('tidying up').waitFor();
    assert.equal(await page.getByLabel('How far it is').count(), 0);
    Object.assign(one, { status: 'succeeded', progress: null });
    await page.getByText('tidying up').waitFor({ state: 'detached' });
  }, { view: `installed/${IDS.export}` });

  const asks = (state) => {
    const { properties } = state.offers.find((one) => one.name === 'orders-export').config_schema;
    properties.list = { type: 'string', title: 'List', 'x-crosspoint': { widget: 'dynamic-select', source: 'flow:export.lists' } };
  };

  run('a script is asked for the choices of a field; what it refuses may be tried again', async (page, server) => {
    server.state.scriptFails = true;
    const list = page.getByRole('combobox', { name: 'List' });
    await list.click();
    await page.getByText('The integration reported an error. You can also type the id by hand.').waitFor();
    server.state.scriptFails = false;
    await page.getByLabel('Folder').fill('weekly');
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByRole('option', { name: 'Newsletter weekly' }).waitFor();
    await list.pressSequentially('cust');
    await page.getByRole('option', { name: 'Newsletter weekly' }).waitFor({ state: 'detached' });
    await page.getByRole('option', { name: 'Customers' }).click();
    await page.getByRole('button', { name: 'Save changes' }).click();
    await page.getByText('The settings are saved.').waitFor();
    assert.deepEqual(server.state.installations.find((one) => one.id === IDS.export).config, { folder: 'weekly', separator: 'comma', list: 'l-17' });
    // The form is made anew, and asks for the label of what is stored.
    await page.waitForFunction(() => [...document.querySelector('crosspoint-marketplace').shadowRoot.querySelectorAll('input')].some((input) => input.value === 'Customers'));
  }, { view: `installed/${IDS.export}/settings`, change: asks });

  run('a script that says nothing keeps nobody from installing', async (page, server) => {
    server.state.scriptFails = true;
    const list = page.getByRole('combobox', { name: 'List' });
    await list.click();
    await page.getByText('The integration reported an error.').waitFor();
    await list.fill('l-99');
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByRole('button', { name: 'Install Nightly order export' }).click();
    await page.getByText('Nightly order export is installed.').waitFor();
    assert.equal(server.state.installations[0].config.list, 'l-99');
    const asked = server.calls.find((call) => call.path.includes('/choices/'));
    assert.equal(asked.path, 'catalogue/orders-export/choices/export');
    assert.deepEqual(asked.body, { config: { folder: 'exports', separator: 'comma' }, connections: {} });
  }, { view: 'install/orders-export', change: asks });

  run('a screen that is left takes no more keys, however late the browser draws', async (page, server) => {
    await page.getByRole('button', { name: 'Continue' }).click();
    const last = page.getByRole('button', { name: 'Install Nightly order export' });
    const before = server.state.installations.length;
    await last.evaluate((one) => {
      // After the element's own listener the screen is left, and nothing has been drawn since.
      window.addEventListener('hashchange', () => { window.again = one.isConnected; one.click(); });
    });
    await last.click();
    await page.getByText('Nightly order export is installed.').waitFor();
    await heading(page, 'Nightly order export');
    assert.equal(await page.evaluate(() => window.again), true);
    assert.equal(server.state.installations.length, before + 1);
  }, { view: 'install/orders-export' });

  run('a choice that is marked stays marked while the list gets shorter', async (page) => {
    const list = page.getByRole('combobox', { name: 'List' });
    await list.click();
    await page.getByRole('option', { name: 'Newsletter exports' }).waitFor();
    await list.press('ArrowDown');
    await list.press('ArrowDown');
    await list.pressSequentially('news');
    await page.getByRole('option', { name: 'Customers' }).waitFor({ state: 'detached' });
    assert.equal(await page.getByRole('option', { name: 'Newsletter exports' }).getAttribute('aria-selected'), 'true');
    await list.press('Enter');
    assert.equal(await list.inputValue(), 'Newsletter exports');
  }, { view: 'install/orders-export', change: asks });

  run('a flow that takes input asks for it', async (page, server) => {
    await page.getByRole('button', { name: 'Run now' }).click();
    await page.getByRole('button', { name: 'Run now' }).last().click();
    await page.getByText('This is needed').first().waitFor();
    await page.getByLabel('Text').fill('Hello');
    await page.getByLabel('Text').press('Enter');
    await page.getByText('“Send sample” has been started.').waitFor();
    assert.deepEqual(server.state.executions[0].input, { text: 'Hello' });
  }, { view: 'installed/one', change: (state) => state.installations.unshift({ id: 'one', integration: 'order-alerts', version: '1.2.0', state: 'active', attention: null, config: {}, connections: {}, revision: 1, created: new Date().toISOString(), updated: new Date().toISOString() }) });

  run('a flow that only a poll feeds is not run by hand; the poll is', async (page, server) => {
    await page.getByRole('button', { name: 'Run now' }).waitFor();
    assert.equal(await page.getByRole('button', { name: /^Run/ }).count(), 1);
    await page.getByRole('button', { name: /^Run/ }).click();
    await page.getByText(/has been started/).waitFor();
    assert.equal(server.state.executions[0].flow, 'book-poll');
  }, { view: 'installed/two', change: (state) => {
    const none = { type: 'object' };
    state.offers.unshift({ ...state.offers[1], name: 'orders-in', title: 'Orders in', flows: [{ name: 'book', trigger: { kind: 'poll' }, input_schema: none }, { name: 'book-poll', trigger: { kind: 'schedule', schedule: { cron: '* * * * *', timezone: 'UTC' } }, input_schema: none }] });
    state.installations.unshift({ id: 'two', integration: 'orders-in', version: '0.4.1', state: 'active', attention: null, config: {}, connections: {}, revision: 1, created: new Date().toISOString(), updated: new Date().toISOString() });
  } });

  run('connections: in use they stay; reconnecting and removing works', async (page, server) => {
    await page.getByRole('button', { name: 'Remove: Sales team' }).click();
    await page.getByText('An installation uses this connection.').waitFor();
    await page.getByRole('button', { name: 'Close' }).click();
    await page.getByRole('button', { name: 'Reconnect: Sales team' }).click();
    assert.equal(await page.getByLabel('Address').inputValue(), 'https://acme.fieldbook.example');
    await page.getByLabel('User name').fill('bob');
    await page.getByLabel('Password').fill('secret');
    await page.getByRole('button', { name: 'Reconnect', exact: true }).click();
    await page.getByText('The connection works (120 ms).').waitFor();
    await page.getByText('Connected').waitFor();
    assert.equal(server.state.connections[0].variables.base_url, 'https://acme.fieldbook.example');
    server.state.installations.pop();
    await page.reload();
    await page.getByText('Not in use').waitFor();
    await page.getByRole('button', { name: 'Remove: Sales team' }).click();
    await page.getByRole('button', { name: 'Remove', exact: true }).click();
    await page.getByText('No connections yet').waitFor();
    assert.equal(server.state.connections.length, 0);
  }, { view: 'connections' });

  run('a server that is down, gone or slow is said in one sentence, and trying again works', async (page, server) => {
    await heading(page, 'Connect your tools');
    server.state.mode = 'down';
    await page.getByRole('link', { name: 'Installed' }).click();
    await page.getByText('The server cannot reach its data. Try again in a moment.').waitFor();
    await page.getByText('Details').click();
    await page.getByText('the database at 10.0.0.7 does not answer').waitFor();
    server.state.mode = 'gone';
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByText('The server cannot be reached.').waitFor();
    server.state.mode = 'slow';
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByText('Loading…').waitFor();
    server.state.mode = 'fine';
    server.state.release();
    await heading(page, 'Installed integrations');
    assert.ok((await events(page)).includes('error'));
  });

  run('a provider that is down does not block the form', async (page, server) => {
    await page.getByLabel('API key', { exact: true }).fill('key-4711-9');
    await page.getByRole('button', { name: 'Connect', exact: true }).click();
    await page.getByText('The connection works').waitFor();
    await page.getByRole('button', { name: 'Continue' }).click();
    server.state.mode = 'provider-gone';
    await page.getByRole('combobox', { name: 'Channel' }).click();
    await page.getByText('The provider cannot be reached. You can also type the id by hand.').waitFor();
    await page.getByRole('combobox', { name: 'Channel' }).fill('C777');
    await page.getByRole('radio', { name: /Nobody/ }).check();
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByRole('heading', { name: 'Review' }).waitFor();
    await page.getByText('C777').waitFor();
  }, { view: 'install/order-alerts' });

  run('without permissions nothing is offered that would be refused', async (page) => {
    await heading(page, 'Nightly order export');
    await page.getByRole('table').waitFor();
    for (const name of ['Pause', 'Run now']) assert.equal(await page.getByRole('button', { name }).count(), 0, name);
    await page.getByRole('link', { name: 'Settings' }).click();
    await page.getByLabel('Folder').waitFor();
    assert.ok(await page.getByLabel('Folder').isDisabled());
    assert.equal(await page.getByRole('button', { name: 'Uninstall' }).count(), 0);
  }, { view: `installed/${IDS.export}`, change: (state) => { state.permissions = ['catalogue-read', 'installation-read', 'execution-read']; } });

  run('embedded: its history is its own, the host steers it by attributes', async (page) => {
    await heading(page, 'Installed integrations');
    await page.getByRole('link', { name: 'Katalog' }).waitFor({ state: 'detached' });
    const host = page.locator('crosspoint-marketplace');
    await page.getByRole('link', { name: 'Nightly order export' }).click();
    await heading(page, 'Nightly order export');
    assert.equal(await page.evaluate(() => location.hash), '');
    await host.evaluate((node) => node.setAttribute('view', 'connections'));
    await heading(page, 'Connections');
    await host.evaluate((node) => node.setAttribute('lang', 'de'));
    await heading(page, 'Verbindungen');
    await page.getByText('Neu verbinden nötig').waitFor();
    await host.evaluate((node) => { node.phrases = { 'connections.title': 'Konten' }; });
    await heading(page, 'Konten');
    await host.evaluate((node) => { const next = node.nextSibling; node.remove(); next ? document.querySelector('main').append(node) : document.querySelector('main').append(node); });
    await heading(page, 'Konten');
  }, { url: (server) => server.embedded({ view: 'installed' }) });
});
