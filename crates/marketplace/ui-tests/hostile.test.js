/** Hostile strings in every field of every answer, and forms whose schemas are strange. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { launch, needed, visit } from './browser.js';
import { IDS, alerts } from './data.js';

const CORPUS = [
  '<img src=x onerror=alert(1)>', '</p><script>alert(2)</script>', '"><svg onload=alert(3)>', "' onfocus=alert(4) autofocus x='", '{{constructor.constructor("alert(5)")()}}',
  'javascript:alert(6)', '\u202Egnp.exe\u0000\u0007', 'data:text/html,<script>alert(7)</script>', '-->', '__proto__', '${alert(8)}', '%3Cscript%3E', 'a'.repeat(3000),
];

describe('hostile', { concurrency: 3, ...needed() }, () => {
  let browser;
  before(async () => { browser = await launch(); });
  after(() => browser?.close());

  /** Every text of a value, made hostile; what the page must understand stays as it is. */
  function poison(value, words, key = '') {
    if (Array.isArray(value)) return value.map((item) => poison(item, words, key));
    if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, poison(item, words, name)]));
    const kept = ['id', 'name', 'connector', 'integration', 'state', 'status', 'health', 'type', '$ref', 'format', 'widget', 'source', 'kind', 'scheme', 'crm', 'created', 'updated', 'installation', 'required', '$schema', 'fields', 'level', 'trigger', 'permissions'];
    return typeof value === 'string' && !kept.includes(key) ? `${words()} ${value}` : value;
  }

  // One word in every text, then each text another one, so that neighbours differ.
  let at = 0;
  for (const [name, words] of [['one', () => CORPUS[0]], ['all', () => CORPUS.join(' ')], ['each', () => CORPUS[(at += 1) % CORPUS.length]]]) {
    const change = (state) => {
      for (const part of ['offers', 'connections', 'installations', 'executions', 'logs']) state[part] = poison(state[part], words);
    };
    test(`shown as text: ${name}`, () => visit(browser, { change }, async (page) => {
      const seen = async (view) => {
        await page.evaluate((to) => document.querySelector('crosspoint-marketplace').navigate(to), view);
        await page.waitForFunction((to) => {
          const host = document.querySelector('crosspoint-marketplace');
          return host.view === to && !host.shadowRoot.querySelector('[aria-busy]') && host.shadowRoot.querySelector('.view h2');
        }, view);
        return page.evaluate(() => {
          const root = document.querySelector('crosspoint-marketplace').shadowRoot;
          const bad = root.querySelectorAll('img, script, iframe, object, embed, [onerror], [onload], [onfocus], [style], a:not([href^="#/"])').length;
          return { bad, text: root.querySelector('.view').textContent };
        });
      };
      for (const view of ['catalogue', 'catalogue/order-alerts', 'install/order-alerts', 'installed', `installed/${IDS.export}`, `installed/${IDS.crm}`, `installed/${IDS.export}/settings`, 'connections']) {
        const { bad, text } = await seen(view);
        assert.equal(bad, 0, view);
        // eslint-disable-next-line no-control-regex
        assert.doesNotMatch(text, /[\u0000-\u0008\u202e]/, view);
        if (view === 'catalogue' && name !== 'each') assert.ok(text.includes(words().replace(/[\u0000\u0007\u202e]/g, '')), 'the text itself is shown');
      }
    }));
  }

  /** The form of an integration with this schema, and what it sends. */
  const form = (config_schema, work) => visit(browser, {
    view: 'install/orders-export', change: (state) => { Object.assign(state.offers[1], { config_schema, flows: [] }); },
  }, work);
  const send = async (page, server) => {
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByRole('button', { name: /^Install / }).click();
    await page.getByText('is installed.').waitFor();
    return server.calls.find((call) => call.method === 'POST').body.config;
  };

  test('a form sends what the schema means', async () => {
    await form(alerts, async (page, server) => {
      await page.getByRole('combobox', { name: 'Channel' }).fill('C9');
      await page.getByRole('radio', { name: /Nobody/ }).check();
      await page.getByRole('radio', { name: /Email/ }).check();
      await page.getByLabel('Address').fill('ann@example.com');
      await page.getByLabel('Paid').check();
      await page.getByRole('textbox', { name: 'Message' }).fill('a\nb');
      await page.getByLabel('Signing secret').fill('s3cret');
      await page.getByLabel('Use this').check();
      await page.getByLabel('From').fill('22:00');
      await page.getByLabel('Until').fill('06:00');
      const add = (group) => page.getByRole('group', { name: group }).getByRole('button', { name: 'Add' }).click();
      for (const at of [1, 2]) {
        await add('Recipients');
        await page.getByRole('group', { name: `Recipients ${at}` }).getByLabel('Name').fill(`Person ${at}`);
      }
      await page.getByRole('group', { name: 'Recipients 1' }).getByLabel('Share').fill('0.25');
      await add('Tags');
      await page.getByLabel('Tags 1', { exact: true }).fill('x');
      await add('Tags');
      await page.getByLabel('Tags 2', { exact: true }).fill('y');
      await page.getByRole('button', { name: 'Remove Tags 1' }).click();
      await add('Labels');
      await page.getByRole('group', { name: 'Labels 1' }).getByLabel('Name').fill('team');
      await page.getByRole('group', { name: 'Labels 1' }).getByLabel('Value').fill('red');
      await page.getByLabel('Extra').fill('{"a": [1]}');
      await page.getByLabel('Test orders too').check();
      assert.deepEqual(await send(page, server), {
        channel: 'C9', threshold: 50, mention: 'nobody', delivery: { kind: 'email', address: 'ann@example.com', urgent: false }, events: ['created', 'paid'], template: 'a\nb', signing_secret: 's3cret',
        quiet_hours: { from: '22:00', until: '06:00' }, recipients: [{ name: 'Person 1', share: 0.25 }, { name: 'Person 2' }], tags: ['y'], labels: { team: 'red' }, include_tests: true, schema_version: 2, extra: { a: [1] },
      });
    });
  });

  test('problems of the server land in nested fields, lists and variants', async () => {
    const { channel, ...properties } = alerts.properties;
    await form({ ...alerts, properties, required: ['delivery', 'threshold', 'mention'] }, async (page) => {
      await page.getByRole('radio', { name: /Nobody/ }).check();
      await page.getByRole('radio', { name: /Email/ }).check();
      await page.getByLabel('Address').fill('ann@elsewhere.example');
      for (const name of ['somebody', 'nobody']) {
        await page.getByRole('group', { name: 'Recipients' }).getByRole('button', { name: 'Add' }).click();
        await page.getByRole('group', { name: 'Recipients' }).getByLabel('Name').last().fill(name);
      }
      await page.getByLabel('Minimum amount').fill('7');
      await page.getByRole('button', { name: 'Continue' }).click();
      await page.getByRole('button', { name: /^Install / }).click();
      for (const [link, field] of [['Minimum amount: must be a multiple of 5', page.getByLabel('Minimum amount')], ['Address: must be an address at example.com', page.getByLabel('Address')], ['Name: is nobody', page.getByRole('group', { name: 'Recipients 2' }).getByLabel('Name')]]) {
        await page.getByRole('button', { name: link }).click();
        assert.equal(await field.getAttribute('aria-invalid'), 'true', link);
        assert.ok(await field.evaluate((node) => node.getRootNode().activeElement === node), link);
        const described = await field.evaluate((node) => node.getAttribute('aria-describedby').split(' ').map((id) => node.getRootNode().getElementById(id).textContent).join(' '));
        assert.ok(described.includes(link.split(': ')[1]), described);
      }
    });
  });

  test('strange schemas: recursion, unions, foreign references, prototype names', async () => {
    await form({
      type: 'object',
      properties: {
        tree: { $ref: '#/$defs/Tree' }, loop: { $ref: '#/$defs/Loop' }, remote: { $ref: 'https://elsewhere.example/schema' }, any: true, untagged: { anyOf: [{ type: 'string' }, { type: 'integer' }] },
        tuple: { type: 'array', prefixItems: [{ type: 'string' }] }, __proto__x: { type: 'string' }, constructor: { type: 'string' }, external: { oneOf: [{ type: 'string', const: 'none' }, { type: 'object', properties: { Daily: { type: 'integer' } }, required: ['Daily'] }] },
        when: { type: 'string', format: 'date-time' }, maybe: { type: ['boolean', 'null'] }, level: { type: ['integer', 'null'], enum: [1, 2, null] }, pattern: { type: 'string', pattern: '^[a-z' },
      },
      $defs: { Tree: { type: 'object', properties: { name: { type: 'string' }, child: { anyOf: [{ $ref: '#/$defs/Tree' }, { type: 'null' }] } } }, Loop: { $ref: '#/$defs/Loop' } },
    }, async (page, server) => {
      await page.getByLabel('Constructor').fill('c');
      await page.getByRole('radio', { name: 'Daily' }).check();
      await page.getByLabel('Daily').last().fill('3');
      await page.getByLabel('When').fill('2026-11-21T09:30');
      await page.getByLabel('Level').selectOption('2');
      await page.getByLabel('Any').fill('{nonsense');
      await page.getByRole('button', { name: 'Continue' }).click();
      await page.getByRole('button', { name: /^Any: This is not JSON/ }).click();
      await page.keyboard.press('ControlOrMeta+a');
      await page.keyboard.type('[1, null]');
      const config = await send(page, server);
      assert.equal(config.constructor, 'c');
      assert.deepEqual([config.external, config.when, config.level, config.any], [{ Daily: 3 }, '2026-11-21T09:30:00.000Z', 2, [1, null]]);
      for (const key of ['remote', 'untagged', 'tuple', 'maybe', 'pattern', 'loop']) assert.ok(!Object.hasOwn(config, key), key);
    });
  });

  test('a stored secret is never shown, kept when left alone, and replaced when entered', () => visit(browser, {
    view: `installed/${IDS.export}/settings`,
    change: (state) => {
      state.offers[1].config_schema = { type: 'object', required: ['token'], properties: { token: { type: 'object', properties: { $secret: { type: 'string' } }, 'x-crosspoint': { widget: 'secret' } } } };
      state.installations[0].config = { token: 'canary-77' };
    },
  }, async (page, server) => {
    const save = page.getByRole('button', { name: 'Save changes' });
    await page.getByText('A value is stored. Leave this empty to keep it.').waitFor();
    assert.equal(await page.getByLabel('Token').inputValue(), '');
    await save.click();
    await page.getByText('The settings are saved.').waitFor();
    assert.deepEqual(server.calls.findLast((call) => call.method === 'PATCH').body.config, {});
    assert.equal(server.state.installations[0].config.token, 'canary-77');
    await page.getByLabel('Token').fill('new');
    await save.click();
    await page.waitForFunction(() => document.querySelector('crosspoint-marketplace').shadowRoot.querySelector('[type=password]').value === '');
    assert.equal(server.state.installations[0].config.token, 'new');
  }));

  test('500 integrations are searched', () => visit(browser, {
    change: (state) => { state.offers = Array.from({ length: 500 }, (_, at) => ({ ...state.offers[at % 6], name: `x-${at}`, title: `Integration ${at}` })); },
  }, async (page) => {
    await page.getByRole('searchbox').fill('Integration 499');
    await page.getByText('1 integration', { exact: true }).waitFor();
    assert.equal(await page.getByRole('listitem').count(), 1);
  }));
});
