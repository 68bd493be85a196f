/** What the mock server knows at its start: schemas as schemars writes them, and some history. */

const ago = (minutes) => new Date(Date.now() - minutes * 60_000).toISOString();

export const alerts = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'Settings',
  type: 'object',
  required: ['channel', 'delivery', 'threshold', 'mention'],
  properties: {
    channel: { type: 'string', description: 'Where new orders are announced', 'x-crosspoint': { widget: 'dynamic-select', source: 'chat.channels' } },
    threshold: { type: 'integer', format: 'uint32', minimum: 0, maximum: 100000, title: 'Minimum amount', description: 'Orders below this amount are not announced.', default: 50 },
    mention: { $ref: '#/$defs/Mention', description: 'Who is mentioned' },
    delivery: { $ref: '#/$defs/Delivery', description: 'How the announcement travels' },
    events: { type: 'array', uniqueItems: true, items: { $ref: '#/$defs/Kind' }, default: ['created'], description: 'Which changes are announced' },
    template: { type: ['string', 'null'], title: 'Message', description: 'Leave it empty for ours.', examples: ['Order {number} over {total}'], 'x-crosspoint': { widget: 'textarea' } },
    signing_secret: { anyOf: [{ type: 'object', properties: { $secret: { type: 'string' } }, required: ['$secret'], 'x-crosspoint': { widget: 'secret' } }, { type: 'null' }], title: 'Signing secret', description: 'Announcements are signed with it.', 'x-crosspoint': { widget: 'secret' } },
    quiet_hours: { anyOf: [{ $ref: '#/$defs/Quiet' }, { type: 'null' }], description: 'When nothing is announced' },
    recipients: { type: 'array', default: [], maxItems: 3, items: { $ref: '#/$defs/Recipient' } },
    tags: { type: 'array', default: [], items: { type: 'string' } },
    labels: { type: 'object', default: {}, additionalProperties: { type: 'string' } },
    include_tests: { type: 'boolean', default: false, title: 'Test orders too', description: 'Announce orders from the test shop.' },
    schema_version: { const: 2 },
    extra: { type: ['string', 'number', 'null'], title: 'Extra', description: 'Whatever else the receiver expects' },
  },
  $defs: {
    Mention: { oneOf: [{ const: 'nobody', description: 'Quiet: people read it when they can.' }, { const: 'channel', title: 'Everybody in the channel', description: 'For the few orders that matter.' }] },
    Kind: { type: 'string', enum: ['created', 'paid', 'cancelled'] },
    Delivery: {
      oneOf: [
        { type: 'object', description: 'A message in the channel', properties: { kind: { type: 'string', const: 'chat' } }, required: ['kind'] },
        { type: 'object', description: 'A mail for each order', properties: { kind: { type: 'string', const: 'email' }, address: { type: 'string', format: 'email' }, urgent: { type: 'boolean', default: false } }, required: ['kind', 'address'] },
      ],
    },
    Quiet: { type: 'object', properties: { from: { type: 'string', format: 'time' }, until: { type: 'string', format: 'time' } }, required: ['from', 'until'] },
    Recipient: { type: 'object', properties: { name: { type: 'string', minLength: 2 }, share: { type: 'number', minimum: 0, maximum: 1 } }, required: ['name'] },
  },
};

const chat = { name: 'chat', connector: 'chat', title: 'Chatterbox', summary: 'Team chat. Messages are posted on behalf of your company.', base_url_needed: false, schemes: [{ scheme: 'api-key-header', header: 'authorization', prefix: 'Bearer ', fields: ['api_key'] }, { scheme: 'basic', fields: ['username', 'password'] }] };
const crm = { name: 'crm', connector: 'crm', title: 'Fieldbook CRM', summary: 'Customers and contacts.', base_url_needed: true, schemes: [{ scheme: 'basic', fields: ['username', 'password'] }] };
const nightly = { kind: 'schedule', schedule: { cron: '0 3 * * *', timezone: 'Europe/Berlin', jitter_ms: 0, missed: 'fire-once', overlap: 'coalesce-one' } };
const none = { type: 'object', properties: {}, additionalProperties: false };
const tick = { type: 'object', properties: { scheduled: { type: 'string', format: 'date-time' } }, required: ['scheduled'] };

export function offers() {
  return [
    { name: 'order-alerts', version: '1.2.0', title: 'Order alerts', summary: 'Announces new orders in the channel where your team already talks.', category: 'Communication', description: 'Every order above an amount that you choose is announced in a channel, with its number, its total and who placed it.\n\nNothing is written back to your shop, and no customer data but the name leaves it.', config_schema: alerts, connections: [chat],
      flows: [{ name: 'announce', trigger: { kind: 'event', event: 'order.created' }, input_schema: none }, { name: 'send-sample', trigger: { kind: 'call' }, input_schema: { type: 'object', properties: { text: { type: 'string', title: 'Text' } }, required: ['text'] } }] },
    { name: 'orders-export', version: '0.4.1', title: 'Nightly order export', summary: 'Writes each day’s orders to a CSV file for your accounting.', category: 'Finance', description: 'Runs at night and remembers where it stopped.', config_schema: { type: 'object', properties: { folder: { type: 'string', default: 'exports' }, separator: { type: 'string', enum: ['comma', 'semicolon'], default: 'comma' } } }, connections: [], flows: [{ name: 'export', trigger: nightly, input_schema: tick }] },
    { name: 'crm-sync', version: '2.0.0', title: 'CRM sync', summary: 'Keeps companies and contacts in step with your CRM, both ways.', category: 'Sales', description: 'Contacts are matched by mail address.', config_schema: none, connections: [crm], flows: [{ name: 'sync', trigger: { kind: 'schedule', schedule: { cron: '*/15 * * * *', timezone: 'UTC' } }, input_schema: tick }] },
    { name: 'weekly-digest', version: '1.0.0', title: 'Weekly digest', summary: 'One message on Monday with the figures of the week before.', category: 'Communication', description: '', config_schema: none, connections: [chat], flows: [{ name: 'digest', trigger: { kind: 'schedule', schedule: { cron: '0 8 * * 1', timezone: 'UTC' } }, input_schema: tick }] },
    { name: 'invoice-mailer', version: '1.1.3', title: 'Invoice mailer', summary: 'Sends invoices the moment an order is paid.', category: 'Finance', description: '', config_schema: none, connections: [], flows: [{ name: 'send', trigger: { kind: 'event', event: 'order.paid' }, input_schema: none }] },
    { name: 'stock-watch', version: '0.9.0', title: 'Stock watch', summary: 'Warns before a product runs out, with the suppliers that have it.', category: 'Logistics', description: '', config_schema: none, connections: [], flows: [{ name: 'watch', trigger: { kind: 'event', event: 'stock.changed' }, input_schema: none }] },
  ];
}

export const IDS = { export: '0197a000-0000-7000-8000-000000000001', crm: '0197a000-0000-7000-8000-000000000002', crmLink: '0197a000-0000-7000-8000-000000000003' };

export function seed() {
  const made = { created: ago(60 * 24 * 3), updated: ago(90) };
  const run = (id, minutes, status, more) => ({
    id: `0197b000-0000-7000-8000-00000000000${id}`, installation: IDS.export, integration: 'orders-export', version: '0.4.1', flow: 'export', trigger: 'schedule', status, attempt: 1, max_attempts: 5, created: ago(minutes), started: ago(minutes), finished: ago(minutes - 1),
    next_attempt: null, timings: { queue_ms: 120, setup_ms: 210, run_ms: 4300 }, isolation: 'process', failure: null, origin: 'first', frozen: true, ...more,
  });
  return {
    permissions: ['catalogue-read', 'installation-read', 'installation-manage', 'connection-manage', 'execution-read', 'execution-run'],
    offers: offers(),
    connections: [{ id: IDS.crmLink, connector: 'crm', title: 'Fieldbook CRM', label: 'Sales team', scheme: 'basic', variables: { base_url: 'https://acme.fieldbook.example' }, health: 'needs-reconnect', ...made, secret: { username: 'ann', password: 'x' } }],
    installations: [
      { id: IDS.export, integration: 'orders-export', version: '0.4.1', state: 'active', attention: null, config: { folder: 'exports', separator: 'comma' }, connections: {}, revision: 4, ...made },
      { id: IDS.crm, integration: 'crm-sync', version: '1.9.0', state: 'needs-attention', attention: { code: 'credentials-refused', message: 'Fieldbook CRM answered 401.' }, config: {}, connections: { crm: IDS.crmLink }, revision: 2, ...made },
    ],
    executions: [
      run(1, 1, 'running', { attempt: 1, finished: null, timings: { queue_ms: 30, setup_ms: 0, run_ms: 0 }, trigger: 'call' }),
      run(2, 14, 'waiting', { attempt: 2, finished: null, next_attempt: new Date(Date.now() + 80_000).toISOString(), failure: { code: 'provider-unreachable', message: 'connect to files.acme.example:443: connection refused' } }),
      run(3, 60 * 9, 'succeeded', {}),
      run(4, 60 * 33, 'failed', { attempt: 5, failure: { code: 'script-failed', message: 'the script ended with exit code 3: the folder is not writable' }, timings: { queue_ms: 900, setup_ms: 230, run_ms: 1200 } }),
      run(5, 60 * 57, 'cancelled', { attempt: 1, trigger: 'call' }),
    ],
    logs: {
      '0197b000-0000-7000-8000-000000000003': [
        { at: ago(540), level: 'info', audience: 'customer', message: 'Looking for orders since 20 November, 03:00.' },
        { at: ago(540), level: 'warn', audience: 'customer', message: 'Order 1042 has no tax number; it was exported without one.' },
        { at: ago(539), level: 'info', audience: 'customer', message: '34 orders were written to exports/2026-11-21.csv.' },
      ],
      '0197b000-0000-7000-8000-000000000004': [{ at: ago(60 * 33), level: 'error', audience: 'customer', message: 'The folder “exports” cannot be written.' }],
    },
    choices: Array.from({ length: 24 }, (_, at) => ({ value: `C${100 + at}`, label: at === 0 ? '#orders' : at === 1 ? '#sales' : `#team-${at}` })),
  };
}
