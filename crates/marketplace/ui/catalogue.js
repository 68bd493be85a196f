/** The catalogue, and the page of one integration. */
import { p } from './api.js';
import { h, icon, uid } from './dom.js';
import { badge, button, empty, heading, monogram, flowName, triggerWords } from './parts.js';

/** @typedef {import('./element.js').Context} Context */

/** The badge of an integration that is installed. @param {Context} cx @param {any} item */
function mark(cx, { installations = [] }) {
  if (!installations.length) return null;
  const troubled = installations.some((one) => one.state === 'needs-attention');
  return troubled ? badge(cx, 'state', 'needs-attention') : badge(cx, 'state', 'installed');
}

/** All integrations: search, categories, cards. @param {Context} cx */
export async function catalogue(cx) {
  const { items } = await cx.api.get('catalogue', cx.signal);
  const title = heading(cx.t('catalogue.title'));
  if (!items.length) return h('div', null, title, empty(cx.t('catalogue.empty'), cx.t('catalogue.empty-hint')));

  const state = cx.memory.get('catalogue') ?? { search: '', category: '' };
  cx.memory.set('catalogue', state);
  const cards = items.map((item) => ({
    item,
    text: [item.title, item.name, item.summary, item.category].join(' ').toLocaleLowerCase(cx.i18n.lang),
    node: h('li', { class: 'card', part: 'card' },
      h('div', { class: 'card-head' }, monogram(item.title, item.name), mark(cx, item)),
      h('h3', null, cx.link(p`catalogue/${item.name}`, { class: 'cover' }, item.title)),
      h('p', null, item.summary),
      item.category && h('p', { class: 'small muted' }, item.category)),
  }));
  const none = h('div', { hidden: true }, empty(cx.t('catalogue.none'), cx.t('catalogue.none-hint')));
  const count = h('p', { class: 'vh', role: 'status' });
  const draw = () => {
    const wanted = state.search.trim().toLocaleLowerCase(cx.i18n.lang).split(/\s+/);
    let shown = 0;
    for (const { item, text, node } of cards) {
      const fits = (!state.category || item.category === state.category) && wanted.every((word) => text.includes(word));
      node.hidden = !fits;
      if (fits) shown += 1;
    }
    none.hidden = shown > 0;
    count.textContent = cx.t('catalogue.count', { n: shown });
  };

  const categories = new Map();
  for (const { category } of items) if (category) categories.set(category, (categories.get(category) ?? 0) + 1);
  const chips = [['', cx.t('catalogue.all'), items.length], ...[...categories].map(([name, n]) => [name, name, n])].map(([name, label, n]) =>
    h('button', {
      type: 'button', class: 'chip', part: 'chip', 'aria-pressed': String(name === state.category), 'data-category': name,
      onclick: () => {
        state.category = name;
        for (const chip of chips) chip.setAttribute('aria-pressed', String(chip.dataset.category === name));
        draw();
      },
    }, label, h('span', { class: 'count' }, cx.i18n.numbers.format(n))));

  const id = uid();
  const search = h('input', {
    id, type: 'search', part: 'input search', autocomplete: 'off', placeholder: cx.t('catalogue.search'),
    oninput: () => { state.search = search.value; draw(); },
  });
  search.value = state.search;
  draw();
  return h('div', null, title, h('p', { class: 'lead' }, cx.t('catalogue.lead')),
    h('div', { class: 'toolbar' },
      h('div', { class: 'search' }, icon('search'), h('label', { for: id, class: 'vh' }, cx.t('catalogue.search')), search),
      categories.size > 1 && h('div', { class: 'chips', role: 'group', 'aria-label': cx.t('catalogue.categories') }, chips)),
    count, h('ul', { class: 'grid' }, cards.map((card) => card.node)), none);
}

/** One integration: what it does, what it needs, install. @param {Context} cx @param {string} name */
export async function integration(cx, name) {
  const item = await cx.api.get(p`catalogue/${name}`, cx.signal);
  const installations = item.installations ?? [];
  const paragraphs = String(item.description || item.summary || '').split(/\n\s*\n/).filter(Boolean);
  const can = cx.may('installation-manage');
  const go = can && button(cx.t(installations.length ? 'integration.again' : 'install'), () => cx.go(p`install/${name}`),
    { class: installations.length ? '' : 'primary', part: 'button primary' });
  return h('div', null, cx.link('catalogue', { class: 'back' }, icon('back'), cx.t('nav.catalogue')),
    h('header', { class: 'head' }, monogram(item.title, item.name),
      h('div', { class: 'grow' }, heading(item.title), h('p', { class: 'muted' }, [item.category, cx.t('version', { version: item.version })].filter(Boolean).join(' · '))),
      h('div', { class: 'actions' }, go)),
    installations.length > 0 && h('ul', { class: 'list', part: 'list' }, installations.map((one) => h('li', null,
      badge(cx, 'state', one.state), h('span', { class: 'grow' }), cx.link(p`installed/${one.id}`, {}, cx.t('open'))))),
    h('div', { class: 'columns' },
      h('section', { class: 'prose' }, h('h3', null, cx.t('integration.about')), paragraphs.map((text) => h('p', null, text))),
      h('div', { class: 'stack' },
        h('section', { class: 'box', part: 'card' }, h('h3', null, cx.t('integration.needs')),
          item.connections?.length
            ? h('ul', { class: 'facts' }, item.connections.map((slot) => h('li', null, icon('plug'),
              h('div', null, h('p', { class: 'strong' }, cx.t('integration.account', { title: slot.title || slot.connector })), slot.summary && h('p', { class: 'small muted' }, slot.summary)))))
            : h('p', { class: 'muted' }, cx.t('integration.needs-nothing'))),
        item.flows?.length > 0 && h('section', { class: 'box', part: 'card' }, h('h3', null, cx.t('integration.runs')),
          h('ul', { class: 'facts' }, item.flows.map((flow) => h('li', null, icon(flow.trigger?.kind === 'schedule' ? 'clock' : 'play'),
            h('div', null, h('p', { class: 'strong' }, flowName(flow)), h('p', { class: 'small muted' }, triggerWords(cx, flow))))))))),
    !can && h('p', { class: 'muted' }, cx.t('may-not')));
}
