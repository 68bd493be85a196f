/** The way from the catalogue to an installation: connect, configure, review. */
import { p } from './api.js';
import { append, h, icon, swap } from './dom.js';
import { schemaForm } from './form.js';
import { slotPicker } from './connections.js';
import { button, formShell, heading, monogram, flowName, triggerWords } from './parts.js';

/** @typedef {import('./element.js').Context} Context */

/** How many choices of a script are shown at once. */
const PAGE = 50;

/**
 * Choices for a form: of a script (`flow:<flow>.<list>`), or of the provider over the connection that stands in the slot
 * of the source's connector.
 * @param {Context} cx
 * @param {any[]} slots
 * @param {() => Record<string, string | undefined>} chosen
 * @param {string} base where scripts are asked
 * @param {() => any} config the configuration as far as it is filled in
 */
export const choicesOver = (cx, slots, chosen, base, config) => {
  const asked = new Map();
  /** Each script is asked once for what it was told; what failed may be tried again. */
  const ask = (flow) => {
    const body = { config: config() ?? {}, connections: filled(chosen()) };
    const key = JSON.stringify([flow, body]);
    if (!asked.has(key)) {
      const answer = cx.api.post(`${base}/${p`choices/${flow}`}`, body);
      asked.set(key, answer);
      answer.catch(() => asked.delete(key));
    }
    return asked.get(key);
  };
  return async (source, search, after) => {
    if (!source.startsWith('flow:')) return provided(cx, slots, chosen, source, search, after);
    const end = source.lastIndexOf('.');
    const { fields } = await ask(source.slice('flow:'.length, end));
    const typed = search.toLowerCase();
    const fitting = (fields[source.slice(end + 1)] ?? []).filter(({ label }) => label.toLowerCase().includes(typed));
    const from = Number(after ?? 0);
    return { items: fitting.slice(from, from + PAGE), next: fitting.length > from + PAGE ? String(from + PAGE) : null };
  };
};

async function provided(cx, slots, chosen, source, search, after) {
  const connector = source.split('.')[0];
  const slot = slots.find((one) => one.connector === connector);
  const id = slot && chosen()[slot.name];
  if (!id) throw Object.assign(new Error(source), { code: 'no-connection' });
  const query = new URLSearchParams({ ...(search && { search }), ...(after && { after }) });
  return cx.api.get(p`connections/${id}/choices/${source}` + (query.size ? `?${query}` : ''), cx.signal);
}

/** @param {Context} cx @param {string} name */
export async function install(cx, name) {
  const [item, all] = await Promise.all([cx.api.get(p`catalogue/${name}`, cx.signal), cx.api.all('connections', cx.signal)]);
  const slots = item.connections ?? [];
  const key = `install ${name}`;
  const draft = cx.memory.get(key) ?? { step: 0, config: undefined, connections: {} };
  cx.memory.set(key, draft);
  for (const slot of slots) {
    const fitting = all.filter((one) => one.connector === slot.connector);
    if (!fitting.some((one) => one.id === draft.connections[slot.name])) draft.connections[slot.name] = fitting.length === 1 ? fitting[0].id : undefined;
  }

  let configure;
  // Fields ask while the form is being made, when there is nothing to read yet.
  const env = { choices: choicesOver(cx, slots, () => draft.connections, p`catalogue/${name}`, () => (configure ? configure.read() : draft.config)) };
  configure = schemaForm(cx, item.config_schema ?? {}, draft.config, env);
  const steps = [slots.length && 'connect', !configure.empty && 'configure', 'review'].filter(Boolean);
  const progress = h('ol', { class: 'steps', 'aria-label': cx.t('install.steps') });
  const place = h('div', { class: 'box step', part: 'card' });
  const drop = () => { cx.memory.delete(key); cx.go(p`catalogue/${name}`); };

  /** @param {number} to @param {boolean} [moved] */
  const show = (to, moved = true) => {
    draft.step = Math.min(to, steps.length - 1);
    const step = steps[draft.step];
    swap(progress, steps.map((one, index) => h('li', { 'aria-current': index === draft.step && 'step', class: index < draft.step && 'done' },
      h('span', { class: 'dot', 'aria-hidden': 'true' }, index < draft.step ? icon('ok') : index + 1), cx.t(`install.${one}`))));
    const title = h('h3', { tabindex: '-1' }, cx.t(`install.${step}`));
    const back = draft.step > 0 ? button(cx.t('back'), () => show(draft.step - 1)) : button(cx.t('cancel'), drop);
    const { node, complain } = step === 'connect' ? connect(back) : step === 'configure' ? settings(back) : review(back);
    place.replaceChildren(title, node);
    if (moved) title.focus();
    return complain;
  };

  const connect = (back) => {
    const pickers = slots.map((slot) => slotPicker(cx, slot, all, draft.connections[slot.name], (id) => { draft.connections[slot.name] = id; }));
    // The forms of new connections are forms of their own, so these cards cannot stand inside another form.
    const shell = formShell(cx, {
      forms: [], body: [], submit: cx.t('continue'), actions: [back],
      check: () => pickers.flatMap((picker) => picker.check()),
      send: async () => { show(draft.step + 1); },
      show: (problems) => problems.map(({ message }) => ({ field: null, message })),
    });
    return { ...shell, node: h('div', null, h('p', { class: 'muted' }, cx.t('install.connect-hint')), pickers.map((picker) => picker.node), shell.node) };
  };

  const settings = (back) => formShell(cx, {
    forms: [configure], submit: cx.t('continue'), actions: [back],
    send: async () => { draft.config = configure.read(); show(draft.step + 1); },
    show: (problems) => configure.show(problems, '/config'),
  });

  const review = (back) => {
    draft.config = configure.read();
    const accounts = slots.map((slot) => {
      const one = all.find((other) => other.id === draft.connections[slot.name]);
      return [slot.title || slot.connector, one?.label || one?.title || ''];
    });
    const rows = [...accounts, ...configure.summary()];
    const body = [
      h('dl', { class: 'summary-list' }, rows.map(([label, text]) => h('div', null, h('dt', null, label), h('dd', null, text)))),
      item.flows?.length > 0 && h('p', { class: 'muted' }, cx.t('install.then')),
      h('ul', { class: 'facts' }, item.flows?.map((flow) => h('li', null, icon('play'), h('div', null, h('span', { class: 'strong' }, flowName(flow)), ' – ', triggerWords(cx, flow))))),
    ];
    return formShell(cx, {
      forms: [], body, submit: cx.t('install.now', { title: item.title }), actions: [back],
      send: async () => {
        const made = await cx.api.post('installations', { integration: name, config: draft.config ?? {}, connections: filled(draft.connections), activate: true });
        cx.memory.delete(key);
        cx.emit('installed', { id: made.id, integration: name });
        cx.say(cx.t('install.done', { title: item.title }));
        await cx.go(p`installed/${made.id}`);
      },
      caught: (error) => {
        // Back to the step that can mend it, with the server's words at its fields.
        const about = error.errors ?? [];
        if (!about.length) return false;
        const links = about.every((one) => one.pointer.startsWith('/connections'));
        const step = steps.indexOf(links ? 'connect' : 'configure');
        if (step < 0) return false;
        const complain = show(step, false);
        complain(links ? about.map((one) => ({ field: null, message: one.message })) : configure.show(about, '/config'), cx.sentence(error));
        return true;
      },
      show: (problems) => problems.map(({ message }) => ({ field: null, message })),
    });
  };

  show(draft.step, false);
  return append(h('div'), [cx.link(p`catalogue/${name}`, { class: 'back' }, icon('back'), item.title),
    h('header', { class: 'head' }, monogram(item.title, item.name), h('div', { class: 'grow' }, heading(cx.t('install.title', { title: item.title })))),
    progress, place]);
}

/** Without the slots that hold nothing. @param {Record<string, string | undefined>} connections */
const filled = (connections) => Object.fromEntries(Object.entries(connections).filter(([, id]) => id));
