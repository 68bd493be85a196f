/** The list of what is installed, and the page of one installation. */
import { ApiError, p } from './api.js';
import { h, icon, swap, uid, words } from './dom.js';
import { executions } from './executions.js';
import { schemaForm } from './form.js';
import { choicesOver } from './install.js';
import { badge, button, busy, dialog, empty, formShell, heading, moment, monogram, notice, problemPanel, flowName, triggerWords } from './parts.js';

/** @typedef {import('./element.js').Context} Context */

/** Everything that is installed. @param {Context} cx */
export async function installed(cx) {
  const all = await cx.api.all('installations', cx.signal);
  const title = heading(cx.t('installed.title'));
  if (!all.length) {
    return h('div', null, title, empty(cx.t('installed.empty'), cx.t('installed.empty-hint'),
      button(cx.t('nav.catalogue'), () => cx.go('catalogue'), { class: 'primary', part: 'button primary' })));
  }
  return h('div', null, title, h('p', { class: 'lead' }, cx.t('installed.lead')), h('ul', { class: 'list', part: 'list' }, all.map((one) => {
    const next = (one.schedules ?? []).map((schedule) => schedule.next).filter(Boolean).sort()[0];
    return h('li', { class: 'linked' }, monogram(one.title || one.integration, one.integration),
      h('div', { class: 'grow' }, h('h3', null, cx.link(p`installed/${one.id}`, { class: 'cover' }, one.title || one.integration)),
        h('p', { class: 'small muted' }, cx.t('installed.since'), ' ', moment(cx, one.created), next && one.state === 'active' && [' · ', cx.t('installed.next'), ' ', moment(cx, next)])),
      badge(cx, 'state', one.state), icon('more'));
  })));
}

/** Codes of attention that a look at the connections can mend. */
const CONNECTION_CODES = ['connection-missing', 'credentials-refused', 'secret-unreadable'];

/** One installation. @param {Context} cx @param {string} id @param {string} [tab] */
export async function installation(cx, id, tab = 'activity') {
  const path = p`installations/${id}`;
  const first = await cx.api.call('GET', path, { signal: cx.signal });
  let one = first.data;
  let revision = first.revision;
  const item = await cx.api.get(p`catalogue/${one.integration}`, cx.signal).catch((error) => {
    if (error instanceof ApiError && error.status === 404) return { connections: [], flows: one.flows ?? [], config_schema: { type: 'object' } };
    throw error;
  });
  const manage = cx.may('installation-manage');
  const title = one.title || one.integration;
  const head = h('div');
  const trouble = h('div');
  let runs = null;

  const take = (fresh) => {
    one = fresh.data;
    revision = fresh.revision ?? `"${one.revision}"`;
    draw();
  };
  const act = (work) => (event) => busy(event.currentTarget, async () => {
    trouble.replaceChildren();
    try {
      await work();
    } catch (error) {
      if (!cx.signal.aborted) trouble.replaceChildren(problemPanel(cx, error));
    }
  });
  const turn = (verb) => act(async () => {
    take(await cx.api.call('POST', `${path}/${verb}`));
    cx.emit(verb === 'pause' ? 'paused' : 'resumed', { id });
    cx.say(cx.t(`installation.${verb}d`, { title }));
  });
  const starters = cx.may('execution-run') ? (item.flows ?? []).filter((flow) => flow.trigger?.kind === 'call' || flow.trigger?.kind === 'schedule') : [];
  const start = (flow) => act(() => runNow(cx, path, flow, async () => {
    cx.say(cx.t('installation.started', { flow: flowName(flow) }));
    if (runs) await runs.refresh();
    else cx.go(p`installed/${id}`);
  }));

  const draw = () => {
    const paused = one.state === 'paused';
    const live = one.state === 'active' || one.state === 'needs-attention';
    swap(head, h('header', { class: 'head' }, monogram(title, one.integration),
      h('div', { class: 'grow' }, heading(title), h('p', { class: 'muted' }, badge(cx, 'state', one.state), ' ', cx.t('version', { version: one.version }),
        one.offered_version && one.offered_version !== one.version && [' · ', cx.t('installation.newer', { version: one.offered_version })])),
      h('div', { class: 'actions' },
        one.state !== 'draft' && starters.map((flow) => button(starters.length > 1 ? cx.t('installation.run-named', { flow: flowName(flow) }) : cx.t('installation.run'), start(flow), { picture: 'play', 'data-k': `run ${flow.name}` })),
        manage && live && button(cx.t('installation.pause'), turn('pause'), { picture: 'pause', 'data-k': 'turn' }),
        manage && (paused || one.state === 'draft') && button(cx.t(paused ? 'installation.resume' : 'installation.activate'), turn('resume'), { picture: 'play', class: 'primary', part: 'button primary', 'data-k': 'turn' }))),
    one.attention && notice('warn', h('p', { class: 'strong' }, cx.sentence(one.attention)), h('p', null, one.attention.message),
      CONNECTION_CODES.includes(one.attention.code) && h('p', null, cx.link('connections', {}, cx.t('installation.check-connections')))),
    paused && notice('info', h('p', null, cx.t('installation.is-paused'))));
  };
  draw();

  const tabs = h('nav', { class: 'tabs', 'aria-label': cx.t('installation.parts') }, [['activity', p`installed/${id}`], ['settings', p`installed/${id}/settings`]].map(([name, view]) =>
    cx.link(view, { 'aria-current': name === tab && 'page' }, cx.t(`installation.${name}`))));
  const page = h('div', null, cx.link('installed', { class: 'back' }, icon('back'), cx.t('nav.installed')), head, trouble, tabs);
  if (tab === 'settings') {
    page.append(await settings(cx, { path, item, title, get: () => ({ one, revision }), take }));
    return page;
  }
  if (one.schedules?.length) page.append(schedules(cx, path, () => one, manage, act));
  if (cx.may('execution-read')) {
    runs = await executions(cx, id);
    page.append(runs.node);
  }
  return page;
}

/** When it runs by itself, and rests from that. @param {Context} cx @param {string} path @param {() => any} get @param {boolean} manage @param {(work: () => Promise<void>) => any} act */
function schedules(cx, path, get, manage, act) {
  const list = h('ul', { class: 'facts' });
  const draw = () => swap(list, get().schedules.map((schedule, at) => {
    const { flow, next, paused } = schedule;
    const verb = paused ? 'resume' : 'pause';
    const turn = act(async () => {
      get().schedules[at] = await cx.api.post(`${path}/${p`schedules/${flow}/${verb}`}`);
      cx.say(cx.t(`schedule.${verb}d`, { flow: words(flow) }));
      draw();
    });
    return h('li', null, icon(paused ? 'pause' : 'clock'),
      h('div', { class: 'grow' }, h('p', { class: 'strong' }, words(flow)), h('p', { class: 'small muted' }, cx.i18n.cron(schedule),
        paused && [' · ', cx.t('schedule.since'), ' ', moment(cx, paused)],
        next && get().state === 'active' && [' · ', cx.t('installation.next'), ' ', moment(cx, next)])),
      manage && button(cx.t(`installation.${verb}`), turn, { class: 'small', 'data-k': `turn ${flow}`, 'aria-label': `${cx.t(`installation.${verb}`)}: ${words(flow)}` }));
  }));
  draw();
  return h('section', null, h('h3', null, cx.t('installation.schedules')), list);
}

/** Starts a flow, after asking for its input if it takes one. @param {Context} cx @param {string} path @param {any} flow @param {() => Promise<unknown>} started */
async function runNow(cx, path, flow, started) {
  const send = async (input) => {
    await cx.api.post(`${path}/${p`flows/${flow.name}/start`}`, { input });
    await started();
  };
  if (flow.trigger.kind === 'schedule') return send(undefined);
  const form = schemaForm(cx, flow.input_schema ?? {}, undefined);
  if (form.empty) return send(form.read() ?? null);
  await dialog(cx, cx.t('installation.run-named', { flow: flowName(flow) }), (close) => [formShell(cx, {
    forms: [form], submit: cx.t('installation.run'), actions: [button(cx.t('cancel'), close)],
    send: async () => { await send(form.read()); close(); },
    show: (problems) => form.show(problems, '/input'),
  }).node]);
}

/**
 * @param {Context} cx
 * @param {{path: string, item: any, title: string, get: () => {one: any, revision: string | null}, take: (fresh: any) => void}} how
 */
async function settings(cx, { path, item, title, get, take }) {
  const manage = cx.may('installation-manage');
  const slots = item.connections ?? [];
  const all = slots.length ? await cx.api.all('connections', cx.signal) : [];
  const place = h('section');

  const draw = () => {
    const { one, revision } = get();
    let base = revision;
    const chosen = { ...one.connections };
    let form;
    form = schemaForm(cx, item.config_schema ?? {}, one.config, { choices: choicesOver(cx, slots, () => chosen, path, () => (form ? form.read() : one.config)) });
    const selects = slots.map((slot) => connectionSelect(cx, slot, all, chosen));
    if (!slots.length && form.empty) return swap(place, h('p', { class: 'muted' }, cx.t('settings.none')));
    const shell = formShell(cx, {
      forms: [form], body: [selects, form.node], submit: cx.t('settings.save'),
      actions: [button(cx.t('settings.reset'), () => { draw(); })],
      show: (problems) => form.show(problems, '/config'),
      caught: (error) => {
        if (error.code !== 'revision-stale') return false;
        shell.summary.replaceChildren(conflict);
        conflict.focus();
        return true;
      },
      send: async () => {
        take(await cx.api.call('PATCH', path, { revision: base, body: { config: form.read() ?? {}, ...(slots.length && { connections: chosen }) } }));
        cx.emit('updated', { id: get().one.id });
        cx.say(cx.t('settings.saved'));
        draw();
      },
    });
    const latest = async () => {
      const fresh = await cx.api.call('GET', path, { signal: cx.signal });
      take(fresh);
      return fresh.revision ?? `"${fresh.data.revision}"`;
    };
    const conflict = notice('warn', h('p', { class: 'strong' }, cx.t('error.revision-stale')), h('p', null, cx.t('settings.conflict')), h('p', { class: 'actions' },
      button(cx.t('settings.theirs'), async () => { await latest(); draw(); place.querySelector('input, select, textarea')?.focus(); }),
      button(cx.t('settings.mine'), async () => { base = await latest(); shell.node.requestSubmit(); })));
    conflict.tabIndex = -1;
    conflict.setAttribute('role', 'alert');
    swap(place, h('div', { class: 'box', part: 'card' }, h('h3', null, cx.t('settings.title')), shell.node));
    if (!manage) for (const control of place.querySelectorAll('input, select, textarea, button')) control.disabled = true;
  };
  draw();
  return h('div', { class: 'stack' }, place, manage && h('section', { class: 'box', part: 'card' }, h('h3', null, cx.t('uninstall.title')), h('p', { class: 'muted' }, cx.t('uninstall.hint')),
    button(cx.t('uninstall'), () => uninstall(cx, path, item, title, get, take), { class: 'danger' })));
}

/** @param {Context} cx @param {any} slot @param {any[]} all @param {Record<string, string>} chosen */
function connectionSelect(cx, slot, all, chosen) {
  const id = uid();
  const mine = all.filter((one) => one.connector === slot.connector);
  const name = slot.title || slot.connector;
  const missing = !mine.some((one) => one.id === chosen[slot.name]);
  return h('div', { class: 'field' }, h('label', { for: id }, cx.t('settings.connection', { title: name })),
    h('select', { id, part: 'input', onchange: (event) => { chosen[slot.name] = event.target.value; } },
      missing && h('option', { value: chosen[slot.name] ?? '', selected: true }, cx.t('settings.connection-missing')),
      mine.map((one) => h('option', { value: one.id, selected: one.id === chosen[slot.name] }, `${one.label || name} (${cx.t(`health.${one.health}`)})`))));
}

/** @param {Context} cx @param {string} path @param {any} item @param {string} title @param {() => any} get @param {(fresh: any) => void} take */
function uninstall(cx, path, item, title, get, take) {
  return dialog(cx, cx.t('uninstall.ask', { title }), (close) => {
    const place = h('div');
    const point = (picture, text) => h('li', null, icon(picture), h('div', null, text));
    return [
      h('h4', null, cx.t('uninstall.stops')),
      h('ul', { class: 'facts' }, (item.flows ?? []).map((flow) => point('x', `${flowName(flow)} – ${triggerWords(cx, flow)}`)), point('x', cx.t('uninstall.forgets'))),
      h('h4', null, cx.t('uninstall.stays')),
      h('ul', { class: 'facts' }, point('ok', cx.t('uninstall.connections')), point('ok', cx.t('uninstall.history'))),
      place,
      h('div', { class: 'actions' },
        button(cx.t('uninstall'), (event) => busy(event.currentTarget, async () => {
          const { one, revision } = get();
          try {
            await cx.api.call('DELETE', path, { revision: revision ?? `"${one.revision}"` });
          } catch (error) {
            if (error.code === 'revision-stale') take(await cx.api.call('GET', path).catch(() => ({ data: one, revision })));
            if (error.status !== 404) return place.replaceChildren(problemPanel(cx, error));
          }
          cx.emit('uninstalled', { id: one.id, integration: one.integration });
          cx.say(cx.t('uninstall.done', { title }));
          close();
          cx.go('installed');
        }), { class: 'danger', part: 'button danger' }),
        button(cx.t('keep'), close, { autofocus: true })),
    ];
  });
}
