/** A select whose choices come from the provider or a script: searched by typing, in pages, and never a dead end. */
import { h, uid } from './dom.js';
import { present, single } from './fields.js';

/**
 * @param {import('./fields.js').Spec} spec its schema names the source: `x-crosspoint: {widget, source}`
 * @returns {import('./fields.js').Field}
 */
export function dynamicSelect(spec) {
  const { cx, env, schema } = spec;
  const source = String(schema['x-crosspoint'].source ?? '');
  const listId = uid();
  const input = h('input', {
    part: 'input', type: 'text', role: 'combobox', autocomplete: 'off', spellcheck: 'false', id: uid(),
    'aria-autocomplete': 'list', 'aria-expanded': 'false', 'aria-controls': listId, required: spec.required && !spec.nullable,
  });
  const list = h('ul', { id: listId, role: 'listbox', 'aria-label': spec.label, hidden: true, class: 'options', part: 'listbox' });
  const note = h('p', { class: 'hint', role: 'status' });
  const box = h('div', { class: 'combo' }, input, list, note);
  let options = [];
  let next = null;
  let active = -1;
  let turn = 0;
  let timer;
  let value = present(spec.value) ? String(spec.value) : '';
  let label = value;
  input.value = value;

  const open = (yes) => {
    list.hidden = !yes;
    input.setAttribute('aria-expanded', String(yes));
    if (!yes) mark(-1);
  };
  const mark = (index) => {
    active = index;
    [...list.children].forEach((item, at) => item.setAttribute('aria-selected', String(at === index)));
    const item = list.children[index];
    if (item) {
      input.setAttribute('aria-activedescendant', item.id);
      item.scrollIntoView({ block: 'nearest' });
    } else input.removeAttribute('aria-activedescendant');
  };
  const take = (option) => {
    ({ value, label } = option);
    input.value = label;
    note.textContent = '';
    open(false);
    input.dispatchEvent(new Event('input'));
  };
  /** Whoever has chosen one of them by key keeps it, as long as it is there. */
  const draw = (held) => {
    const item = (text, chosen, more = false) => h('li', {
      role: 'option', id: uid(), 'aria-selected': 'false', class: more && 'more',
      onmousedown: (event) => { event.preventDefault(); chosen(); },
    }, text);
    list.replaceChildren(
      ...options.map((option) => item(option.label, () => take(option))),
      ...(next ? [item(cx.t('form.more'), () => load(false), true)] : []),
    );
    mark(options.findIndex((option) => option.value === held));
  };
  const load = async (fresh, search = input.value === label ? '' : input.value) => {
    const mine = (turn += 1);
    box.classList.add('busy');
    try {
      const page = await (env.choices ?? (async () => ({ items: [], next: null })))(source, search, fresh ? null : next);
      if (mine !== turn) return;
      const held = options[active]?.value;
      options = fresh ? page.items : [...options, ...page.items];
      next = page.next;
      note.textContent = options.length ? '' : cx.t('form.no-choices');
      draw(held);
    } catch (error) {
      if (mine !== turn) return;
      options = [];
      next = null;
      draw();
      open(false);
      note.replaceChildren(`${cx.sentence(error)} ${cx.t('form.by-hand')} `, h('button', {
        type: 'button', class: 'link', onclick: () => { show(); input.focus(); },
      }, cx.t('retry')));
    } finally {
      if (mine === turn) box.classList.remove('busy');
    }
  };
  const show = async () => {
    open(true);
    await load(true);
    if (!options.length) open(false);
  };
  const settle = () => {
    const typed = input.value.trim();
    if (typed === label) return;
    const fit = options.find((option) => option.label === typed || option.value === typed);
    if (fit) return take(fit);
    value = label = typed;
    // Not at once: what moves while the pointer is down would escape the click that has taken the focus away.
    setTimeout(() => { if (value === typed) note.textContent = typed && cx.t('form.as-typed'); }, 300);
  };

  input.addEventListener('click', () => { if (list.hidden) show(); });
  input.addEventListener('input', (event) => {
    if (!event.isTrusted) return;
    clearTimeout(timer);
    timer = setTimeout(async () => { open(true); await load(true); open(options.length > 0); }, 200);
  });
  input.addEventListener('blur', () => { clearTimeout(timer); open(false); settle(); });
  input.addEventListener('keydown', (event) => {
    const count = list.children.length;
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      if (list.hidden) show();
      else if (count) mark((active + (event.key === 'ArrowDown' ? 1 : active < 0 ? count : count - 1)) % count);
    } else if (event.key === 'Enter' && !list.hidden && active >= 0) {
      event.preventDefault();
      list.children[active].dispatchEvent(new MouseEvent('mousedown', { cancelable: true }));
    } else if (event.key === 'Escape' && !list.hidden) {
      event.preventDefault();
      event.stopPropagation();
      open(false);
    }
  });

  // A stored value is an id; its label comes with the first page, if it is on it.
  if (value && env.choices) {
    env.choices(source, '', null).then((page) => {
      const fit = page.items.find((option) => option.value === value);
      if (fit && input.value === value) take(fit);
    }, () => {});
  }
  return single(spec, input, {
    body: box,
    read: () => {
      settle();
      return value || (spec.required && !spec.nullable ? '' : spec.nullable && spec.required ? null : undefined);
    },
    text: () => label,
  });
}
