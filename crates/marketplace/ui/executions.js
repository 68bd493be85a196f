/** Executions of an installation: a table that follows what is not finished, and the business log of each. */
import { p } from './api.js';
import { bar, h, swap, uid, words } from './dom.js';
import { badge, button, busy, dialog, empty, formShell, moment, problemPanel } from './parts.js';

/** @typedef {import('./element.js').Context} Context */

const REFRESH_MS = 2000;
const PAGE = 20;
const ENDED = ['succeeded', 'failed', 'cancelled', 'expired'];
const ended = (one) => ENDED.includes(one.status);

/**
 * @param {Context} cx
 * @param {string} installation
 * @returns {Promise<{node: HTMLElement, refresh: () => Promise<void>}>}
 */
export async function executions(cx, installation) {
  const path = p`installations/${installation}/executions`;
  const rows = new Map();
  const columns = ['status', 'flow', 'started', 'duration', 'attempt'];
  const body = h('tbody', { role: 'rowgroup' });
  const table = h('table', { role: 'table', part: 'table', 'aria-label': cx.t('executions.title') },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, columns.map((name) => h('th', { scope: 'col', role: 'columnheader' }, cx.t(`executions.${name}`))),
      h('th', { scope: 'col', role: 'columnheader' }, h('span', { class: 'vh' }, cx.t('executions.actions'))))), body);
  const none = empty(cx.t('executions.empty'), cx.t('executions.empty-hint'));
  const trouble = h('div');
  const more = button(cx.t('more'), (event) => busy(event.currentTarget, older), { hidden: true });
  let next = null;

  const merge = (items, atTop) => {
    const fresh = [];
    for (const item of items) {
      const known = rows.get(item.id);
      if (known) known.update(item);
      else {
        const made = row(cx, item, wake);
        rows.set(item.id, made);
        fresh.push(made.node);
      }
    }
    if (atTop) body.prepend(...fresh);
    else body.append(...fresh);
    table.hidden = rows.size === 0;
    none.hidden = rows.size > 0;
  };
  const refresh = async () => {
    const first = rows.size === 0;
    const page = await cx.api.get(`${path}?limit=${PAGE}`, cx.signal);
    trouble.replaceChildren();
    merge(page.items, true);
    // What has left the first page is asked for by itself until it ends.
    const listed = new Set(page.items.map((item) => item.id));
    await Promise.all([...rows.values()].filter((one) => !ended(one.item) && !listed.has(one.item.id))
      .map(async (one) => one.update(await cx.api.get(p`executions/${one.item.id}`, cx.signal))));
    if (first) next = page.next;
    more.hidden = !next;
  };
  const older = async () => {
    const page = await cx.api.get(`${path}?limit=${PAGE}&after=${encodeURIComponent(next ?? '')}`, cx.signal);
    merge(page.items, false);
    next = page.next;
    more.hidden = !next;
  };
  const wake = cx.poll(REFRESH_MS, async () => {
    try {
      await refresh();
    } catch (error) {
      if (!cx.signal.aborted) trouble.replaceChildren(problemPanel(cx, error));
      throw error;
    }
    return [...rows.values()].some((one) => !ended(one.item));
  });
  await refresh();
  const title = h('div', { class: 'section-head' }, h('h3', null, cx.t('executions.title')),
    button(cx.t('refresh'), (event) => busy(event.currentTarget, async () => {
      await refresh().catch((error) => trouble.replaceChildren(problemPanel(cx, error)));
      wake();
    }), { class: 'small', picture: 'again' }));
  return {
    node: h('section', null, title, trouble, none, table, h('p', { class: 'actions' }, more)),
    refresh: async () => { await refresh(); wake(); },
  };
}

/** @param {any} timings */
const parts = (timings) => [timings?.queue_ms ?? 0, timings?.setup_ms ?? 0, timings?.run_ms ?? 0];

/** How an execution stands, in a sentence; empty when the status says it all. @param {Context} cx @param {any} item */
function story(cx, item) {
  const what = item.failure ? cx.sentence({ code: item.failure.code, message: item.failure.message }) : '';
  const again = item.status === 'waiting' && item.next_attempt ? cx.t('executions.next', { time: cx.i18n.relative(item.next_attempt) }) : '';
  return [what, again].filter(Boolean).join(' ');
}

/** How far a run says that it is. @param {Context} cx @param {any} progress */
function howFar(cx, { done, total, text }) {
  const n = (value) => cx.i18n.numbers.format(value);
  const known = typeof done === 'number';
  const whole = known && total > 0;
  const count = whole ? cx.t('executions.of', { n: n(done), most: n(total) }) : known && n(done);
  return h('span', { class: 'why far' },
    whole && h('progress', { value: Math.min(Math.max(done, 0), total), max: total, 'aria-label': cx.t('executions.progress') }),
    h('span', null, [count, text].filter(Boolean).join(' · ')));
}

/** @param {Context} cx @param {any} item @param {() => void} wake */
function row(cx, item, wake) {
  let open = false;
  const head = h('tr', { role: 'row' });
  const cell = h('td', { role: 'cell', colspan: 6 });
  const detail = h('tr', { role: 'row', class: 'detail-row', hidden: true }, cell);
  const log = h('div');
  const trouble = h('div', { class: 'wide' });
  const node = document.createDocumentFragment();
  const act = (work) => (event) => busy(event.currentTarget, async () => {
    trouble.replaceChildren();
    try {
      await work();
      wake();
    } catch (error) {
      toggle(true);
      trouble.replaceChildren(problemPanel(cx, error));
    }
  });
  const cancel = act(async () => {
    const { result } = await cx.api.post(p`executions/${item.id}/cancel`);
    cx.say(cx.t(`cancel.${result}`));
    update(await cx.api.get(p`executions/${item.id}`, cx.signal));
  });
  const replay = async (how) => {
    await cx.api.post(p`executions/${item.id}/replay`, how);
    cx.say(cx.t('executions.started-again'));
  };
  const again = act(() => replay({}));
  const againWith = act(() => ask(cx, item, replay));
  const toggle = (yes) => {
    open = yes;
    draw();
    if (open) readLog();
  };
  const readLog = async () => {
    try {
      const { items, next } = await cx.api.get(p`executions/${item.id}/log` + '?limit=100', cx.signal);
      log.replaceChildren(items.length ? h('ol', { class: 'log', part: 'log' }, items.map((line) => entry(cx, line))) : h('p', { class: 'muted' }, cx.t(ended(item) ? 'log.empty' : 'log.waiting')));
      if (next) log.append(h('p', { class: 'muted small' }, cx.t('log.cut', { n: items.length })));
    } catch (error) {
      if (!cx.signal.aborted) log.replaceChildren(problemPanel(cx, error));
    }
  };
  const draw = () => {
    const times = parts(item.timings);
    const total = times.reduce((sum, part) => sum + part, 0);
    const data = (name, ...children) => h('td', { role: 'cell', class: `c-${name}`, 'data-label': cx.t(`executions.${name}`) }, children);
    const why = story(cx, item);
    const run = cx.may('execution-run');
    const about = `${words(item.flow)}, ${cx.i18n.date(item.created)}`;
    swap(head,
      data('status', badge(cx, 'status', item.status), why && h('span', { class: 'why' }, why), item.status === 'running' && item.progress && howFar(cx, item.progress)),
      data('flow', h('span', { class: 'strong' }, words(item.flow)), h('span', { class: 'muted small block' }, cx.t(`trigger.${item.trigger}`))),
      data('started', moment(cx, item.started ?? item.created)),
      data('duration', total > 0 ? [cx.i18n.duration(total), bar(times)] : h('span', { class: 'muted' }, '–')),
      // A limit that nobody reaches says nothing.
      data('attempt', item.max_attempts < 100 ? cx.t('executions.of', { n: item.attempt, most: item.max_attempts }) : cx.i18n.numbers.format(item.attempt)),
      h('td', { role: 'cell', class: 'c-actions' },
        button(cx.t('details'), () => toggle(!open), { class: 'small', 'aria-expanded': String(open), 'data-k': 'details', 'aria-label': `${cx.t('details')}: ${about}` }),
        run && (ended(item)
          ? [button(cx.t('executions.again'), again, { class: 'small', 'data-k': 'act', 'aria-label': `${cx.t('executions.again')}: ${about}` }),
            button(cx.t('replay.with'), againWith, { class: 'small', 'data-k': 'with', 'aria-label': `${cx.t('replay.title')}: ${about}` })]
          : button(cx.t('cancel-run'), cancel, { class: 'small', 'data-k': 'act', 'aria-label': `${cx.t('cancel-run')}: ${about}` }))));
    detail.hidden = !open;
    if (!open) return;
    const names = ['queue', 'setup', 'run'];
    swap(cell, h('div', { class: 'detail-body' },
      trouble,
      h('dl', { class: 'legend' }, names.map((name, at) => h('div', { class: `l${at}` }, h('dt', null, cx.t(`executions.${name}`)), h('dd', null, cx.i18n.duration(times[at]))))),
      item.failure && h('p', { class: 'small' }, h('span', { class: 'strong' }, cx.t('executions.cause')), ' ', item.failure.message, ' ', h('code', null, item.failure.code)),
      item.origin?.replay && h('p', { class: 'small muted' }, [cx.t('executions.repeats'),
        item.config === 'original' && cx.t('replay.was-original'), item.state === 'discard' && cx.t('replay.was-discard')].filter(Boolean).join(' ')),
      h('h4', null, cx.t('log.title')), log,
      h('p', { class: 'small muted' }, cx.t('executions.id'), ' ', h('code', null, item.id), ' · ', cx.t('version', { version: item.version }))));
  };
  const update = (now) => {
    const same = JSON.stringify(now) === JSON.stringify(item);
    const moving = !ended(item);
    item = now;
    // A row that has not changed keeps its nodes: drawing it again could swallow a click.
    if (!same) draw();
    else for (const time of head.querySelectorAll('time')) time.textContent = cx.i18n.relative(time.dateTime);
    if (open && moving) readLog();
  };
  draw();
  node.append(head, detail);
  return { node, update, get item() { return item; } };
}

/** Asks with what an execution is repeated. @param {Context} cx @param {any} item @param {(how: any) => Promise<void>} replay */
function ask(cx, item, replay) {
  const how = { config: 'current', state: 'save' };
  const choice = (name, values) => {
    const id = uid();
    return h('div', { class: 'field' }, h('label', { for: id }, cx.t(`replay.${name}`)),
      h('select', { id, part: 'input', 'aria-describedby': `${id}-hint`, onchange: (event) => { how[name] = event.target.value; } },
        values.map((value) => h('option', { value, selected: value === how[name] }, cx.t(`replay.${value}`)))),
      h('p', { class: 'hint', id: `${id}-hint` }, cx.t(values.length > 1 ? `replay.${name}-hint` : 'replay.not-known')));
  };
  return dialog(cx, cx.t('replay.title'), (close) => [formShell(cx, {
    // Without a revision nobody knows what it ran with.
    forms: [], body: [choice('config', item.revision ? ['current', 'original'] : ['current']), choice('state', ['save', 'discard'])],
    submit: cx.t('executions.again'), actions: [button(cx.t('cancel'), close)], show: () => [],
    send: async () => { await replay(how); close(); },
  }).node]);
}

/** One line of the business log. @param {Context} cx @param {any} line */
const entry = (cx, { at, level, message }) => h('li', { class: `level-${level}` },
  h('time', { datetime: at, title: cx.i18n.date(at) }, cx.i18n.time(at)),
  (level === 'warn' || level === 'error') && h('span', { class: 'strong' }, cx.t(`level.${level}`)),
  h('span', { class: 'message' }, message));
