/**
 * `<crosspoint-marketplace>`: the in-app marketplace as one custom element. docs/ui.md describes its attributes, events
 * and theming. It keeps to its shadow root: no globals, no styles outside, no history of the host's page unless asked.
 */
import { Api, ApiError } from './api.js';
import { append, h, icon } from './dom.js';
import { language } from './i18n.js';
import { problemPanel } from './parts.js';
import { sheet } from './styles.js';

/**
 * @typedef {object} Context what a screen may use; it ends with the screen
 * @property {Api} api
 * @property {import('./i18n.js').I18n} i18n
 * @property {(key: string, params?: Record<string, any>) => string} t
 * @property {ShadowRoot} root
 * @property {AbortSignal} signal aborted when the screen is left
 * @property {(view: string) => Promise<never>} go leaves for another screen; never settles, so that what led away stays
 *   busy: a focused button of a screen that is left (inert or not) still takes a key until the browser has drawn again
 * @property {(view: string, props: Record<string, unknown>, ...children: unknown[]) => HTMLElement} link
 * @property {() => Promise<void>} refresh draws the screen again
 * @property {(name: string, detail?: Record<string, string>) => void} emit
 * @property {(text: string) => void} say a short message, seen and heard
 * @property {(error: any) => string} sentence
 * @property {(permission: string) => boolean} may
 * @property {(ms: number, work: () => Promise<boolean>) => () => void} poll while the page is visible and `work` says so;
 *   the answer wakes it up again
 * @property {Map<string, any>} memory lives as long as the element
 */
/**
 * Paths of screens, what draws them (loaded when first shown), and the entry of the navigation that they belong to.
 * @type {[string, () => Promise<(cx: Context, ...params: string[]) => Promise<Node>>, string][]}
 */
const ROUTES = [
  ['catalogue', async () => (await import('./catalogue.js')).catalogue, 'catalogue'],
  ['catalogue/:', async () => (await import('./catalogue.js')).integration, 'catalogue'],
  ['install/:', async () => (await import('./install.js')).install, 'catalogue'],
  ['installed', async () => (await import('./installation.js')).installed, 'installed'],
  ['installed/:', async () => (await import('./installation.js')).installation, 'installed'],
  ['installed/:/:', async () => (await import('./installation.js')).installation, 'installed'],
  ['connections', async () => (await import('./connections.js')).connections, 'connections'],
];

/** How long a screen may take before its outline is shown in its place. */
const FLICKER_MS = 150;

export class CrosspointMarketplace extends HTMLElement {
  static observedAttributes = ['api', 'view', 'lang'];

  #root = this.attachShadow({ mode: 'open' });
  #stop = new AbortController();
  #main = h('div', { class: 'view', part: 'view' });
  #nav = h('nav', { part: 'nav' });
  #toast = h('div', { class: 'toast', role: 'status', part: 'status' });
  #toastTimer;
  #view = '';
  #memory = new Map();
  #phrases;
  #session;
  #i18n;
  #running = 0;
  #pageTitle = document.title;

  constructor() {
    super();
    this.#root.adoptedStyleSheets = [sheet()];
    append(this.#root, [h('div', { class: 'shell', part: 'shell' }, this.#nav, this.#main), this.#toast]);
  }

  /** The host's own words in place of ours, by key (see en.js). */
  set phrases(table) {
    this.#phrases = table;
    if (this.isConnected) this.#start();
  }

  /** Where the element is: `catalogue`, `installed/<id>` and so on. */
  get view() {
    return this.#view;
  }

  connectedCallback() {
    window.addEventListener('hashchange', this.#onHash);
    this.#start();
  }

  disconnectedCallback() {
    window.removeEventListener('hashchange', this.#onHash);
    this.#running += 1;
    this.#stop.abort();
  }

  /** @param {string} name @param {string | null} before @param {string | null} now */
  attributeChangedCallback(name, before, now) {
    if (!this.isConnected || before === now || !this.#running) return;
    if (name === 'view') this.navigate(now ?? 'catalogue');
    else this.#start();
  }

  /**
   * Shows a screen.
   * @param {string} view
   */
  navigate(view) {
    if (!this.#hashed) this.#show(view, true);
    else if (this.#fromHash() === view) this.#show(view, true);
    else location.hash = `#/${view}`;
  }

  get #hashed() {
    return this.getAttribute('history') === 'hash';
  }

  #fromHash() {
    return location.hash.startsWith('#/') ? location.hash.slice(2) : '';
  }

  #onHash = () => {
    if (this.#hashed) this.#show(this.#fromHash() || 'catalogue', true);
  };

  async #start() {
    const run = (this.#running += 1);
    this.#stop.abort();
    // With the page to itself, the element follows the browser; in a host's page, it follows the page.
    const asked = this.lang || (!this.#hashed && this.closest('[lang]')?.getAttribute('lang')) || navigator.language;
    const lang = navigator.language.startsWith(`${asked}-`) ? navigator.language : asked;
    const i18n = await language(lang, this.#phrases);
    if (run !== this.#running) return;
    this.#i18n = i18n;
    this.#main.lang = lang;
    const cx = this.#context(new AbortController());
    try {
      this.#outline();
      this.#session = await cx.api.get('session');
    } catch (error) {
      if (run !== this.#running) return;
      return this.#fail(cx, error, () => this.#start());
    }
    if (run !== this.#running) return;
    await this.#show(this.#view || (this.#hashed && this.#fromHash()) || this.getAttribute('view') || 'catalogue', false);
    if (run === this.#running) cx.emit('ready');
  }

  /** @param {AbortController} stop @returns {Context} */
  #context(stop) {
    const i18n = this.#i18n;
    const { signal } = stop;
    const api = new Api(new URL(this.getAttribute('api') || 'v1/', document.baseURI).href);
    const t = (key, params) => i18n.t(key, params);
    return {
      api, i18n, t, signal,
      root: this.#root,
      memory: this.#memory,
      go: (view) => {
        if (!signal.aborted) this.navigate(view);
        return new Promise(() => {});
      },
      link: (view, props, ...children) => (this.#hashed
        ? h('a', { href: `#/${view}`, part: 'link', ...props }, children)
        : h('button', { type: 'button', role: 'link', part: 'link', onclick: () => this.navigate(view), ...props, class: `link ${props.class ?? ''}` }, children)),
      refresh: async () => { if (!signal.aborted) await this.#show(this.#view, true); },
      emit: (name, detail = {}) => this.dispatchEvent(new CustomEvent(`crosspoint:${name}`, { bubbles: true, composed: true, detail })),
      say: (text) => this.#say(text),
      sentence: (error) => {
        const code = error?.code ?? 'internal';
        if (i18n.has(`error.${code}`)) return t(`error.${code}`);
        return error?.problem?.title || error?.problem?.detail || error?.message || t('error.internal');
      },
      may: (permission) => !this.#session || Boolean(this.#session.permissions?.includes(permission)),
      poll: (ms, work) => poll(signal, ms, work),
    };
  }

  /** @param {string} text */
  #say(text) {
    clearTimeout(this.#toastTimer);
    this.#toast.textContent = text;
    this.#toastTimer = setTimeout(() => this.#toast.replaceChildren(), 6000);
  }

  #outline() {
    this.#main.inert = false;
    this.#main.setAttribute('aria-busy', 'true');
    const text = h('p', { class: 'vh', role: 'status' }, this.#i18n?.t('loading'));
    this.#main.replaceChildren(text, h('div', { class: 'outline', 'aria-hidden': 'true' }, h('div'), h('div'), h('div'), h('div')));
  }

  /** @param {Context} cx @param {any} error @param {() => unknown} again */
  #fail(cx, error, again) {
    this.#main.removeAttribute('aria-busy');
    this.#main.replaceChildren(h('h2', { tabindex: '-1' }, cx.t('problem.title')), problemPanel(cx, error,
      h('button', { type: 'button', part: 'button', onclick: again }, icon('again'), cx.t('retry'))));
    cx.emit('error', { code: error?.code ?? 'internal' });
  }

  #drawNav(cx, current) {
    this.#nav.setAttribute('aria-label', cx.t('nav.label'));
    this.#nav.replaceChildren(...['catalogue', 'installed', 'connections'].map((name) =>
      cx.link(name, { 'aria-current': name === current && 'page' }, cx.t(`nav.${name}`))));
  }

  /** @param {string} view @param {boolean} moved whether somebody asked for it: then the focus follows */
  async #show(view, moved) {
    this.#stop.abort();
    const stop = (this.#stop = new AbortController());
    const parts = view.split('/').filter(Boolean);
    const route = ROUTES.find(([path]) => {
      const want = path.split('/');
      return want.length === parts.length && want.every((part, at) => part === ':' || part === parts[at]);
    });
    const changed = view !== this.#view;
    const [path, load, section] = route ?? ROUTES[0];
    this.#view = route ? view : 'catalogue';
    const cx = this.#context(stop);
    const params = parts.filter((_, at) => path.split('/')[at] === ':').map(decode);
    this.#drawNav(cx, section);
    const slow = setTimeout(() => this.#outline(), FLICKER_MS);
    // What is being left takes no more clicks.
    this.#main.inert = true;
    try {
      const screen = await load();
      const node = await screen(cx, ...params);
      if (stop.signal.aborted) return;
      this.#main.removeAttribute('aria-busy');
      this.#main.replaceChildren(node);
    } catch (error) {
      if (stop.signal.aborted) return;
      this.#fail(cx, error instanceof Error ? error : new ApiError({}), () => cx.refresh());
    } finally {
      clearTimeout(slow);
    }
    this.#main.inert = false;
    const title = this.#main.querySelector('h2');
    if (moved) title?.focus({ preventScroll: true });
    if (moved && changed && this.getBoundingClientRect().top < 0) this.scrollIntoView();
    if (this.#hashed && title) document.title = `${title.textContent} – ${this.#pageTitle}`;
    if (changed) cx.emit('navigate', { view: this.#view });
  }
}

/** @param {string} part */
function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** @param {AbortSignal} signal @param {number} ms @param {() => Promise<boolean>} work */
function poll(signal, ms, work) {
  let timer;
  let wait = ms;
  const later = () => { clearTimeout(timer); timer = setTimeout(tick, wait); };
  const tick = async () => {
    if (signal.aborted || document.visibilityState === 'hidden') return;
    try {
      const more = await work();
      wait = ms;
      if (more && !signal.aborted) later();
    } catch {
      wait = Math.min(wait * 2, 30_000);
      if (!signal.aborted) later();
    }
  };
  document.addEventListener('visibilitychange', tick, { signal });
  signal.addEventListener('abort', () => clearTimeout(timer));
  later();
  return later;
}

if (!customElements.get('crosspoint-marketplace')) customElements.define('crosspoint-marketplace', CrosspointMarketplace);
