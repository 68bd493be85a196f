/**
 * The marketplace's HTTP API in memory, as docs/ui.md and the OpenAPI document describe it, and the page under the
 * strictest policy that hosts use. Executions move one step with each look at them, so no test depends on time.
 */
import { createServer } from 'node:http';
import { readFileSync, readdirSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { offers, seed } from './data.js';

export const UI = fileURLToPath(new URL('../ui/', import.meta.url));
export const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'";
const ENDED = ['succeeded', 'failed', 'cancelled', 'expired'];
const TITLES = { 'input-invalid': 'The input is not what this operation takes.', 'config-invalid': "The configuration does not fit the integration's schema.", 'not-found': 'There is no such thing here.', conflict: 'It clashes with the present state.', 'revision-stale': 'Somebody else changed it in the meantime.', 'revision-required': 'A change needs the revision it starts from, in If-Match.', 'origin-refused': "The request did not come from the host's own pages.", 'store-unavailable': 'The store does not answer.', 'session-missing': 'Nobody is signed in.', 'provider-unreachable': 'The provider could not be reached.', 'capability-missing': 'The signed-in user lacks the capability for this.' };

class Refusal extends Error {
  constructor(status, code, detail, errors = []) {
    super(detail);
    Object.assign(this, { status, body: { type: `errors/${code}`, title: TITLES[code] ?? code, status, code, detail, retry: 'never', errors, instance: randomUUID() } });
  }
}
const missing = () => new Refusal(404, 'not-found', 'no such thing');

/** Starts the server. `state` may be changed at will, `calls` lists what was asked for. */
export async function start(change = () => {}) {
  const state = { ...seed(), mode: 'fine', reports: 0 };
  change(state);
  const calls = [];
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://host');
    const headers = { 'content-security-policy': CSP, 'x-content-type-options': 'nosniff', 'referrer-policy': 'no-referrer' };
    const send = (status, type, body, more = {}) => response.writeHead(status, { ...headers, 'content-type': type, ...more }).end(body);
    const path = url.pathname.replace(/^\/integrations/, '');
    if (url.pathname === '/integrations/' || url.pathname === '/embedded') {
      const page = url.pathname === '/embedded' ? embedded(url.searchParams) : readFileSync(`${UI}index.html`, 'utf8').replaceAll('{{hash}}', 'h4sh');
      return send(200, 'text/html; charset=utf-8', page);
    }
    if (path.startsWith('/ui/h4sh/')) {
      const name = path.slice('/ui/h4sh/'.length);
      if (!readdirSync(UI).includes(name)) return send(404, 'text/plain', '');
      return send(200, name.endsWith('.css') ? 'text/css' : 'text/javascript', readFileSync(UI + name));
    }
    if (!path.startsWith('/v1/')) return send(404, 'text/plain', '');
    let text = '';
    for await (const part of request) text += part;
    const body = text ? JSON.parse(text) : undefined;
    calls.push({ method: request.method, path: path.slice(4), body });
    if (state.mode === 'gone') return request.socket.destroy();
    if (state.mode === 'slow') await new Promise((resolve) => { state.release = resolve; });
    try {
      if (state.mode === 'down') throw new Refusal(503, 'store-unavailable', 'the database at 10.0.0.7 does not answer');
      if (request.method !== 'GET' && request.headers['x-crosspoint'] !== '1') throw new Refusal(403, 'origin-refused', 'the header x-crosspoint is missing');
      if (body !== undefined && request.headers['content-type'] !== 'application/json') throw new Refusal(415, 'content-type-unsupported', 'send JSON');
      const [status, data, more] = answer(state, request.method, path.slice(4).split('/').map(decodeURIComponent), body, url.searchParams, request.headers['if-match']);
      send(status, 'application/json', data === undefined ? undefined : JSON.stringify(data), { 'cache-control': 'no-store', ...more });
    } catch (error) {
      if (!(error instanceof Refusal)) console.error(error);
      send(error.status ?? 500, 'application/problem+json', JSON.stringify(error.body ?? { code: 'internal', title: 'A defect of Crosspoint.', status: 500 }));
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const { port } = server.address();
  return {
    state, calls,
    url: `http://127.0.0.1:${port}/integrations/`,
    embedded: (attributes = {}) => `http://127.0.0.1:${port}/embedded?${new URLSearchParams(attributes)}`,
    close: () => { server.closeAllConnections(); server.close(); },
  };
}

const escape = (text) => text.replace(/[&"<]/g, (char) => `&#${char.charCodeAt(0)};`);

/** A host's own page around the element. */
function embedded(attributes) {
  const html = attributes.get('dir') ? ` dir="${escape(attributes.get('dir'))}"` : '';
  const own = [...attributes].filter(([name]) => name !== 'dir').map(([name, value]) => ` ${name}="${escape(value)}"`).join('');
  return `<!doctype html><html lang="en"${html}><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Host</title><link rel="icon" href="data:,">
<script type="module" src="/integrations/ui/h4sh/element.js"></script></head><body><main><h1>Host</h1><crosspoint-marketplace api="/integrations/v1/"${own}></crosspoint-marketplace></main></body></html>`;
}

function paged(items, query) {
  const limit = Number(query.get('limit') ?? 50);
  const from = Number(query.get('after') ?? 0);
  return { items: items.slice(from, from + limit), next: from + limit < items.length ? String(from + limit) : null };
}

const view = (state, one) => {
  const offer = state.offers.find((other) => other.name === one.integration);
  const config = { ...one.config };
  for (const [key, property] of Object.entries(offer?.config_schema.properties ?? {})) {
    if (property['x-crosspoint']?.widget === 'secret' && config[key] !== undefined) config[key] = { $secret: key, set: true };
  }
  const flows = (offer?.flows ?? []).map(({ name, trigger }) => ({ name, trigger }));
  return {
    ...one, config, title: one.title ?? offer?.title, offered_version: offer?.version ?? null, flows,
    schedules: flows.filter(({ trigger }) => trigger.kind === 'schedule').map(({ name, trigger }) => ({ paused: state.resting?.[`${one.id} ${name}`] ?? null, flow: name, trigger })).map(({ flow, trigger, paused }) => ({
      flow, paused, cron: trigger.schedule.cron, timezone: trigger.schedule.timezone, next: one.state === 'active' && !paused ? new Date(Date.now() + 5_400_000).toISOString() : null,
    })),
  };
};

/** One look at an execution: what was queued runs, what ran is done. */
function step(state, one) {
  if (one.frozen || ENDED.includes(one.status)) return;
  if (one.status === 'queued') {
    Object.assign(one, { status: 'running', attempt: 1, started: new Date().toISOString() });
    state.logs[one.id] = [{ at: new Date().toISOString(), level: 'info', audience: 'customer', message: 'Started.' }];
  } else if (one.status === 'cancelling') Object.assign(one, { status: 'cancelled', finished: new Date().toISOString() });
  else {
    Object.assign(one, { status: 'succeeded', finished: new Date().toISOString(), timings: { queue_ms: 40, setup_ms: 12, run_ms: 380 } });
    state.logs[one.id]?.push({ at: new Date().toISOString(), level: 'info', audience: 'customer', message: '3 orders were announced in #orders.' });
  }
}

export function execution(state, installation, flow, trigger, more = {}) {
  const one = {
    id: randomUUID(), installation: installation.id, integration: installation.integration, version: installation.version, flow, trigger, status: 'queued', attempt: 0, max_attempts: 5,
    created: new Date().toISOString(), started: null, finished: null, next_attempt: null, timings: { queue_ms: 0, setup_ms: 0, run_ms: 0 }, isolation: null, failure: null, origin: 'first', ...more,
  };
  state.executions.unshift(one);
  return one;
}

/** What a real server finds, as far as the tests need it. */
function validate(schema, config) {
  const errors = [];
  for (const key of schema.required ?? []) if (config[key] === undefined) errors.push({ pointer: `/config/${key}`, message: 'is required' });
  if (typeof config.threshold === 'number' && config.threshold % 5) errors.push({ pointer: '/config/threshold', message: 'must be a multiple of 5' });
  if (config.delivery?.kind === 'email' && !String(config.delivery.address ?? '').endsWith('@example.com')) errors.push({ pointer: '/config/delivery/address', message: 'must be an address at example.com' });
  (config.recipients ?? []).forEach((one, at) => { if (one.name === 'nobody') errors.push({ pointer: `/config/recipients/${at}/name`, message: 'is nobody' }); });
  if (errors.length) throw new Refusal(422, 'config-invalid', `${errors.length} problems`, errors);
}

function answer(state, method, path, body, query, match) {
  const [collection, id, part, name, verb] = path;
  const route = `${method} ${path.map((text, at) => (at % 2 && collection !== 'session' ? ':' : text)).join('/')}`;
  const installation = () => state.installations.find((one) => one.id === id) ?? (() => { throw missing(); })();
  const run = () => state.executions.find((one) => one.id === id) ?? (() => { throw missing(); })();
  const connection = () => state.connections.find((one) => one.id === id) ?? (() => { throw missing(); })();
  const installed = (one, status = 200) => [status, view(state, one), { etag: `"${one.revision}"`, location: `installations/${one.id}` }];
  const touch = (one, change) => Object.assign(one, change, { revision: one.revision + 1, updated: new Date().toISOString() });
  const current = (one) => {
    if (!match) throw new Refusal(428, 'revision-required', 'send If-Match');
    if (match !== `"${one.revision}"`) throw new Refusal(412, 'revision-stale', `the revision is ${one.revision}`);
  };
  const shown = (one) => ({ ...one, secret: undefined, used_by: state.installations.filter((other) => Object.values(other.connections).includes(one.id)).map((other) => other.id) });
  const short = (offer) => ({ name: offer.name, version: offer.version, title: offer.title, summary: offer.summary, category: offer.category, installations: state.installations.filter((one) => one.integration === offer.name).map(({ id, state }) => ({ id, state })) });
  switch (route) {
    case 'GET session': return [200, { customer: 'acme', customer_name: 'Acme', user: 'ann', permissions: state.permissions }];
    case 'GET catalogue': return [200, { items: state.offers.map(short) }];
    case 'GET catalogue/:': {
      const offer = state.offers.find((one) => one.name === id);
      if (!offer) throw missing();
      return [200, { ...offer, ...short(offer) }];
    }
    case 'GET installations': return [200, paged(state.installations.map((one) => view(state, one)), query)];
    case 'POST installations': {
      const offer = state.offers.find((one) => one.name === body.integration);
      if (!offer) throw missing();
      for (const slot of offer.connections) if (!body.connections?.[slot.name]) throw new Refusal(422, 'config-invalid', 'a connection is missing', [{ pointer: `/connections/${slot.name}`, message: 'is required' }]);
      validate(offer.config_schema, body.config);
      const now = new Date().toISOString();
      const one = { id: randomUUID(), integration: offer.name, version: offer.version, state: 'active', attention: null, config: body.config, connections: body.connections, revision: 1, created: now, updated: now };
      state.installations.unshift(one);
      for (const flow of offer.flows) if (flow.trigger.kind === 'event') execution(state, one, flow.name, 'event');
      return installed(one, 201);
    }
    case 'GET installations/:': return installed(installation());
    case 'PATCH installations/:': {
      const one = installation();
      current(one);
      if (body.config) {
        const offer = state.offers.find((other) => other.name === one.integration);
        const merged = { ...body.config };
        for (const [key, property] of Object.entries(offer.config_schema.properties ?? {})) if (property['x-crosspoint']?.widget === 'secret' && merged[key] === undefined) merged[key] = one.config[key];
        validate(offer.config_schema, merged);
        one.config = merged;
      }
      return installed(touch(one, body.connections ? { connections: body.connections } : {}));
    }
    case 'DELETE installations/:': {
      const one = installation();
      current(one);
      state.installations.splice(state.installations.indexOf(one), 1);
      return [204];
    }
    case 'POST catalogue/:/choices/:':
    case 'POST installations/:/choices/:': {
      if (state.scriptFails) throw new Refusal(500, 'script-failed', 'the script ended with exit code 1');
      return [200, { fields: { lists: [{ value: 'l-17', label: 'Customers' }, { value: 'l-18', label: `Newsletter ${body.config.folder}` }] } }];
    }
    case 'POST installations/:/schedules/:/pause':
    case 'POST installations/:/schedules/:/resume': {
      const schedule = view(state, installation()).schedules.find((one) => one.flow === name);
      if (!schedule) throw missing();
      const paused = verb === 'pause' ? new Date().toISOString() : null;
      (state.resting ??= {})[`${id} ${name}`] = paused;
      return [200, view(state, installation()).schedules.find((one) => one.flow === name)];
    }
    case 'POST installations/:/pause': return installed(touch(installation(), { state: 'paused' }));
    case 'POST installations/:/resume': return installed(touch(installation(), { state: 'active', attention: null }));
    case 'GET installations/:/executions': {
      installation();
      const mine = state.executions.filter((one) => one.installation === id);
      const page = paged(mine.map((one) => structuredClone(one)), query);
      mine.forEach((one) => step(state, one));
      return [200, page];
    }
    case 'POST installations/:/flows/:/start': {
      const flow = view(state, installation()).flows.find((one) => one.name === name);
      if (!flow || verb !== 'start') throw missing();
      if (flow.trigger.kind === 'poll') throw new Refusal(409, 'conflict', 'this flow is started by what its poll finds');
      const made = execution(state, installation(), name, 'call', { input: body.input });
      return [202, { id: made.id }, { location: `executions/${made.id}` }];
    }
    case 'GET executions/:': return [200, structuredClone(run())];
    case 'GET executions/:/log': return [200, paged(state.logs[id] ?? [], query)];
    case 'POST executions/:/cancel': {
      const one = run();
      if (ENDED.includes(one.status)) return [200, { result: 'finished' }];
      Object.assign(one, { status: 'cancelling', frozen: false });
      return [200, { result: 'requested' }];
    }
    case 'POST executions/:/replay': {
      const one = run();
      if (state.configGone) throw new Refusal(410, 'config-gone', 'the configuration that it ran with is not kept any more');
      const made = execution(state, { id: one.installation, integration: one.integration, version: one.version }, one.flow, 'call', { origin: { replay: one.id }, config: body.config ?? 'current', state: body.state ?? 'save' });
      return [202, { id: made.id }];
    }
    case 'GET connections': return [200, paged(state.connections.map(shown), query)];
    case 'POST connections': {
      const errors = check(body);
      if (errors.length) throw new Refusal(422, 'input-invalid', 'the credential is incomplete', errors);
      const slot = state.offers.flatMap((offer) => offer.connections).find((one) => one.connector === body.connector);
      const now = new Date().toISOString();
      const one = { id: randomUUID(), connector: body.connector, title: slot.title, label: body.label ?? slot.title, scheme: body.scheme ?? slot.schemes[0].scheme, variables: body.variables ?? {}, health: 'unknown', created: now, updated: now, secret: body.fields };
      state.connections.unshift(one);
      return [201, shown(one)];
    }
    case 'PUT connections/:/credential': {
      const errors = check(body);
      if (errors.length) throw new Refusal(422, 'input-invalid', 'the credential is incomplete', errors);
      const one = connection();
      Object.assign(one, { secret: body.fields, label: body.label ?? one.label, variables: body.variables ?? one.variables, health: 'unknown', updated: new Date().toISOString() });
      return [200, shown(one)];
    }
    case 'POST connections/:/test': {
      const one = connection();
      const ok = one.secret?.api_key !== 'wrong';
      one.health = ok ? 'connected' : 'needs-reconnect';
      return [200, { ok, message: ok ? '' : `${one.title} answered 401: the key is not known.`, took_ms: 120 }];
    }
    case 'DELETE connections/:': {
      const one = connection();
      if (shown(one).used_by.length) throw new Refusal(409, 'conflict', 'an installation uses the connection');
      state.connections.splice(state.connections.indexOf(one), 1);
      return [204];
    }
    case 'GET connections/:/choices/:': {
      connection();
      if (state.mode === 'provider-gone') throw new Refusal(502, 'provider-unreachable', 'connection refused');
      const fitting = state.choices.filter((one) => one.label.includes(query.get('search') ?? ''));
      return [200, paged(fitting, new URLSearchParams({ limit: '10', after: query.get('after') ?? '0' }))];
    }
    default: throw missing();
  }
}

function check({ fields, scheme, variables }) {
  const errors = [];
  const wanted = scheme === 'basic' ? ['username', 'password'] : ['api_key'];
  for (const field of wanted) if (!fields?.[field]) errors.push({ pointer: `/fields/${field}`, message: 'is required' });
  if (fields?.api_key === 'short') errors.push({ pointer: '/fields/api_key', message: 'must have at least 8 characters' });
  if (variables?.base_url && !variables.base_url.startsWith('https://')) errors.push({ pointer: '/variables/base_url', message: 'must start with https://' });
  return errors;
}

export { offers };
