/** Connections: the form that makes one, the choice of one, and the page of all of them. */
import { ApiError, p } from './api.js';
import { append, h, icon, swap, uid } from './dom.js';
import { schemaForm } from './form.js';
import { badge, button, busy, dialog, empty, formShell, heading, monogram, moment, notice, problemPanel } from './parts.js';

/** @typedef {import('./element.js').Context} Context */

/** The fields of schemes for which the API gave none. */
const FIELDS = ({ none: [], 'api-key-header': ['api_key'], 'api-key-query': ['api_key'], basic: ['username', 'password'] });

/** Fields that may be seen while they are typed. */
const PLAIN = ['username', 'user', 'email', 'account', 'client_id'];

/**
 * The schema of what a scheme asks for, shaped like the body of the request, so that the server's pointers fit.
 * @param {Context} cx
 * @param {{connector: string, title?: string, base_url_needed?: boolean}} slot
 * @param {any} scheme
 * @param {any} [existing]
 */
function connectSchema(cx, slot, scheme, existing) {
  const names = scheme.fields ?? FIELDS[scheme.scheme] ?? [];
  const baseUrl = slot.base_url_needed || existing?.variables?.base_url !== undefined;
  const fields = Object.fromEntries(names.map((name) => [name, {
    type: 'string',
    title: cx.i18n.has(`field.${name}`) ? cx.t(`field.${name}`) : undefined,
    ...(!PLAIN.includes(name) && { 'x-crosspoint': { widget: 'secret' } }),
  }]));
  const bare = { 'x-crosspoint': { flat: true } };
  return {
    type: 'object',
    required: ['fields', 'variables'],
    properties: {
      ...(baseUrl && { variables: { type: 'object', ...bare, properties: { base_url: { type: 'string', format: 'uri', title: cx.t('field.base_url'), description: cx.t('field.base_url-hint') } }, required: ['base_url'] } }),
      fields: { type: 'object', ...bare, properties: fields, required: names },
      label: { type: 'string', title: cx.t('field.label'), description: cx.t('field.label-hint') },
    },
  };
}

/**
 * The form for a new connection, or for the credential of an existing one.
 * @param {Context} cx
 * @param {any} slot connector, title, schemes, base_url_needed
 * @param {{existing?: any, done: (connection: any) => unknown, cancel?: () => void}} how
 */
export function connectForm(cx, slot, { existing, done, cancel }) {
  const schemes = slot.schemes?.length ? slot.schemes : [{ scheme: existing?.scheme ?? 'api-key-header' }];
  let at = Math.max(0, schemes.findIndex((one) => one.scheme === existing?.scheme));
  const place = h('div');
  const draw = () => {
    const value = { label: existing?.label ?? '', variables: existing?.variables ?? {} };
    const form = schemaForm(cx, connectSchema(cx, slot, schemes[at], existing), value);
    const shell = formShell(cx, {
      forms: [form],
      submit: cx.t(existing ? 'connection.reconnect' : 'connection.connect'),
      actions: cancel && [button(cx.t('cancel'), cancel)],
      show: (problems) => form.show(problems),
      send: async () => {
        const { label, variables, fields } = form.read();
        const body = { scheme: schemes[at].scheme, label: label || undefined, variables: variables && { ...existing?.variables, ...variables }, fields: fields ?? {} };
        const made = existing
          ? (await cx.api.call('PUT', p`connections/${existing.id}/credential`, { body })).data
          : await cx.api.post('connections', { connector: slot.connector, ...body });
        if (!existing) cx.emit('connection-created', { id: made.id, connector: made.connector });
        await done(made);
      },
    });
    const pick = schemes.length > 1 && schemeChoice(cx, schemes, at, (index) => { at = index; draw(); });
    swap(place, pick, shell.node);
  };
  draw();
  return place;
}

/** @param {Context} cx @param {any[]} schemes @param {number} at @param {(index: number) => void} changed */
function schemeChoice(cx, schemes, at, changed) {
  const id = uid();
  return h('div', { class: 'field' }, h('label', { for: id }, cx.t('field.scheme')),
    h('select', { id, part: 'input', 'data-k': 'scheme', onchange: (event) => changed(Number(event.target.value)) },
      schemes.map((one, index) => h('option', { value: index, selected: index === at },
        cx.i18n.has(`scheme.${one.scheme}`) ? cx.t(`scheme.${one.scheme}`) : one.scheme))));
}

/**
 * Tests a connection and says the result in words.
 * @param {Context} cx
 * @param {string} id
 * @returns {Promise<{ok: boolean, node: HTMLElement}>}
 */
async function test(cx, id) {
  try {
    const { ok, message, took_ms: took } = await cx.api.post(p`connections/${id}/test`);
    const words = [cx.t(ok ? 'connection.works' : 'connection.works-not', { took: cx.i18n.duration(took ?? 0) }), message].filter(Boolean).join(' ');
    return { ok, node: notice(ok ? 'ok' : 'danger', h('p', null, words)) };
  } catch (error) {
    return { ok: false, node: problemPanel(cx, error) };
  }
}

/**
 * The choice of a connection for one slot of an integration: one of those there are, or a new one.
 * @param {Context} cx
 * @param {any} slot as the catalogue describes it
 * @param {any[]} all the customer's connections; a new one is added to it
 * @param {string | undefined} chosen
 * @param {(id: string | undefined) => void} changed
 */
export function slotPicker(cx, slot, all, chosen, changed) {
  const title = slot.title || slot.connector;
  const place = h('div', { class: 'stack' });
  const result = h('div', { role: 'status' });
  const name = uid();
  const legend = h('legend', null, monogram(title, slot.connector), title);
  const error = h('p', { class: 'error', id: uid(), hidden: true });
  const node = h('fieldset', { class: 'slot box', part: 'card', 'aria-describedby': error.id }, legend, slot.summary && h('p', { class: 'hint' }, slot.summary), error, place, result);
  const choose = (id) => {
    chosen = id;
    error.hidden = true;
    changed(id);
  };
  const check = (id) => async (event) => {
    await busy(event.currentTarget, async () => { result.replaceChildren((await test(cx, id)).node); });
  };
  /** `making`: whether to show a form for a new connection, or the connection to connect again. */
  const draw = (making) => {
    const mine = all.filter((one) => one.connector === slot.connector);
    const options = mine.map((one) => {
      const id = uid();
      const input = h('input', { type: 'radio', name, id, part: 'radio', checked: one.id === chosen, 'data-k': one.id, onchange: () => { choose(one.id); result.replaceChildren(); draw(false); } });
      return h('div', { class: 'radio' }, input, h('label', { for: id, class: 'grow' }, one.label || title), badge(cx, 'health', one.health),
        one.id === chosen && one.health === 'needs-reconnect' && button(cx.t('connection.reconnect'), () => make(one), { class: 'small' }),
        one.id === chosen && button(cx.t('connection.test'), check(one.id), { class: 'small', 'data-k': `test ${one.id}` }));
    });
    const fresh = !mine.length || making;
    const form = fresh && connectForm(cx, slot, {
      existing: making === true ? undefined : making || undefined,
      cancel: mine.length ? () => draw(false) : undefined,
      done: async (made) => {
        const old = all.findIndex((one) => one.id === made.id);
        all.splice(Math.max(old, 0), old < 0 ? 0 : 1, made);
        choose(made.id);
        const { ok, node: words } = await test(cx, made.id);
        const tested = await cx.api.get('connections?limit=100', cx.signal).catch(() => null);
        const now = tested?.items.find((one) => one.id === made.id);
        Object.assign(made, now ?? { health: ok ? 'connected' : made.health });
        result.replaceChildren(words);
        draw(false);
        node.querySelector('input:checked')?.focus();
      },
    });
    swap(place, mine.length > 0 && h('div', { class: 'radios' }, options), form || button(cx.t('connection.another'), () => make(true), { class: 'small', picture: 'plus' }));
  };
  const make = (making) => {
    result.replaceChildren();
    draw(making);
    place.querySelector('form input, form select')?.focus();
  };
  if (!cx.may('connection-manage') && !all.some((one) => one.connector === slot.connector)) append(place, [h('p', { class: 'muted' }, cx.t('may-not'))]);
  else draw(false);
  const field = {
    label: title,
    fail: (message) => { error.textContent = message; error.hidden = !message; },
    focus: () => node.querySelector('input, select, button')?.focus(),
  };
  return {
    node,
    field,
    check: () => {
      if (chosen) return [];
      field.fail(cx.t('connection.needed'));
      return [{ field, message: cx.t('connection.needed') }];
    },
  };
}

/** All connections of the customer. @param {Context} cx */
export async function connections(cx) {
  const [all, installations] = await Promise.all([cx.api.all('connections', cx.signal), cx.api.all('installations', cx.signal).catch(() => [])]);
  const titles = new Map(installations.map((one) => [one.id, one.title || one.integration]));
  const list = h('ul', { class: 'list', part: 'list' });
  const page = h('div', null, heading(cx.t('connections.title')), h('p', { class: 'lead' }, cx.t('connections.lead')), list);
  if (!all.length) list.replaceWith(empty(cx.t('connections.empty'), cx.t('connections.empty-hint'), button(cx.t('nav.catalogue'), () => cx.go('catalogue'))));
  append(list, all.map((one) => line(cx, one, titles, () => cx.refresh())));
  return page;
}

/** @param {Context} cx @param {any} one @param {Map<string, string>} titles @param {() => unknown} changed */
function line(cx, one, titles, changed) {
  const below = h('div', { class: 'wide', role: 'status' });
  const health = h('span', null, badge(cx, 'health', one.health));
  const users = (one.used_by ?? []).map((id) => cx.link(p`installed/${id}`, {}, titles.get(id) ?? id));
  const name = one.label || one.title || one.connector;
  const manage = cx.may('connection-manage');
  const form = h('div', { class: 'wide' });
  const reload = async () => {
    const fresh = (await cx.api.all('connections', cx.signal)).find((other) => other.id === one.id);
    if (fresh) Object.assign(one, fresh);
    health.replaceChildren(badge(cx, 'health', one.health));
  };
  const tested = async () => {
    below.replaceChildren((await test(cx, one.id)).node);
    await reload();
  };
  const reconnect = () => form.replaceChildren(connectForm(cx, { ...one, schemes: [{ scheme: one.scheme }] }, {
    existing: one,
    cancel: () => form.replaceChildren(),
    done: async () => { form.replaceChildren(); await tested(); },
  }));
  return h('li', { class: 'wrap' }, monogram(one.title || one.connector, one.connector),
    h('div', { class: 'grow' }, h('h3', null, name),
      h('p', { class: 'small muted' }, [one.title || one.connector, cx.i18n.has(`scheme.${one.scheme}`) ? cx.t(`scheme.${one.scheme}`) : one.scheme].join(' · '), ' · ', cx.t('connection.updated'), ' ', moment(cx, one.updated)),
      h('p', { class: 'small muted' }, users.length ? [cx.t('connection.used'), ' ', users.map((user, index) => [index > 0 && ', ', user])] : cx.t('connection.unused'))),
    health,
    manage && h('div', { class: 'actions' },
      button(cx.t('connection.test'), (event) => busy(event.currentTarget, tested), { class: 'small', 'aria-label': `${cx.t('connection.test')}: ${name}` }),
      button(cx.t('connection.reconnect'), () => { reconnect(); form.querySelector('input')?.focus(); }, { class: 'small', 'aria-label': `${cx.t('connection.reconnect')}: ${name}` }),
      button(cx.t('remove'), () => remove(cx, one, name, changed), { class: 'small quiet', 'aria-label': `${cx.t('remove')}: ${name}` })),
    form, below);
}

/** @param {Context} cx @param {any} one @param {string} name @param {() => unknown} changed */
function remove(cx, one, name, changed) {
  const blocked = (one.used_by ?? []).length > 0;
  return dialog(cx, cx.t('connection.remove', { name }), (close) => {
    const place = h('div');
    if (blocked) return [h('p', null, cx.t('connection.in-use')), h('div', { class: 'actions' }, button(cx.t('close'), close, { class: 'primary', autofocus: true }))];
    return [h('p', null, cx.t('connection.remove-hint')), place, h('div', { class: 'actions' },
      button(cx.t('remove'), (event) => busy(event.currentTarget, async () => {
        try {
          await cx.api.call('DELETE', p`connections/${one.id}`);
        } catch (error) {
          if (!(error instanceof ApiError) || error.status !== 404) return place.replaceChildren(problemPanel(cx, error));
        }
        close();
        cx.say(cx.t('connection.removed', { name }));
        await changed();
      }), { class: 'danger' }),
      button(cx.t('keep'), close, { autofocus: true }))];
  });
}
