/**
 * The only way in which the element makes nodes: text goes into text nodes, everything else into attributes from a
 * list. There is no way from a string to markup, so nothing that the API says can become an element or a script.
 */

const ATTRIBUTE = new RegExp(
  '^(aria-[a-z]+|data-[a-z]+|id|class|part|for|type|name|href|role|tabindex|title|lang|dir|hidden|disabled|required|' +
    'readonly|checked|selected|value|min|max|step|minlength|maxlength|pattern|placeholder|autocomplete|inputmode|rows|' +
    'open|novalidate|colspan|scope|datetime|target|rel|spellcheck|autofocus)$',
);
/** Control characters and bidirectional overrides: they can make a text read as another one. */
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f\u202a-\u202e\u2066-\u2069]/g;

/**
 * A text without characters that disguise it.
 * @param {unknown} text
 */
export const clean = (text) => String(text).replace(INVISIBLE, '');

/**
 * The URL if a link may lead there: https, or anything of our own origin.
 * @param {unknown} url
 * @returns {string | undefined}
 */
export function safeUrl(url) {
  try {
    const parsed = new URL(String(url), document.baseURI);
    const own = parsed.origin === location.origin && /^https?:$/.test(parsed.protocol);
    return own || parsed.protocol === 'https:' ? String(url) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Makes an element. A function under `on...` listens; null, undefined and false leave an attribute out.
 * @param {string} tag
 * @param {Record<string, unknown> | null} [props]
 * @param {...unknown} children nodes, texts, arrays of them; null, undefined and false are left out
 * @returns {HTMLElement}
 */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function' && key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (!ATTRIBUTE.test(key)) throw new TypeError(`attribute ${key}`);
    else if (key === 'href') {
      const url = safeUrl(value);
      if (url !== undefined) node.setAttribute(key, url);
    } else node.setAttribute(key, value === true ? '' : clean(value));
  }
  return append(node, children);
}

/**
 * Appends children as `h` does.
 * @template {Element | DocumentFragment} N
 * @param {N} node
 * @param {unknown[]} children
 * @returns {N}
 */
export function append(node, children) {
  for (const child of children.flat(9)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : clean(child));
  }
  return node;
}

/**
 * Replaces what is in `node`, and keeps the focus on the element with the same `data-k`, if it had it.
 * @param {HTMLElement} node
 * @param {...unknown} children
 */
export function swap(node, ...children) {
  const root = node.getRootNode();
  const active = root.activeElement;
  const had = active && node.contains(active);
  const key = active?.getAttribute('data-k');
  node.replaceChildren();
  append(node, children);
  if (!had) return;
  const next = key && [...node.querySelectorAll('[data-k]')].find((other) => other.getAttribute('data-k') === key);
  const target = (next || node.querySelector('[tabindex="-1"], button, a[href]'));
  target?.focus();
}

/**
 * Words from a name: `base_url` becomes "Base url".
 * @param {string} key
 */
export function words(key) {
  const text = key.replace(/[_-]+/g, ' ').replace(/([a-z\d])([A-Z])/g, '$1 $2').trim();
  return text && text[0].toUpperCase() + text.slice(1);
}

let last = 0;
/** An id that no other node of any of our shadow roots has. */
export const uid = () => `cp${++last}`;

/** Outlines on a grid of 24 by 24. */
const ICONS = {
  ok: 'M20 6 9 17l-5-5',
  warn: 'M12 9v4m0 4h.01M10.3 3.9 1.8 18a2 2 0 0 0 1.7 3h17a2 2 0 0 0 1.7-3L13.7 3.9a2 2 0 0 0-3.4 0z',
  fail: 'M12 8v5m0 3h.01M22 12a10 10 0 1 1-20 0 10 10 0 0 1 20 0z',
  pause: 'M8 5v14M16 5v14',
  play: 'M7 4.5v15l12-7.5z',
  clock: 'M12 7v5l3 2M22 12a10 10 0 1 1-20 0 10 10 0 0 1 20 0z',
  run: 'M21 12a9 9 0 1 1-6.2-8.6',
  stop: 'M6 6h12v12H6z',
  plug: 'M9 2v5m6-5v5M6 7h12v4a6 6 0 0 1-12 0zm6 10v5',
  back: 'M15 18l-6-6 6-6',
  more: 'M9 6l6 6-6 6',
  again: 'M3 12a9 9 0 1 0 3-6.7L3 8m0-5v5h5',
  plus: 'M12 5v14M5 12h14',
  x: 'M18 6 6 18M6 6l12 12',
  search: 'M21 21l-4.3-4.3M19 11a8 8 0 1 1-16 0 8 8 0 0 1 16 0z',
};

/**
 * A small picture beside a text; never the only carrier of a meaning.
 * @param {keyof typeof ICONS} name
 */
export function icon(name) {
  const ns = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(ns, 'svg');
  const path = document.createElementNS(ns, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', `icon i-${name}`);
  svg.setAttribute('aria-hidden', 'true');
  svg.append(path);
  return svg;
}

/**
 * A bar whose parts are as long as the numbers are large.
 * @param {number[]} parts
 */
export function bar(parts) {
  const ns = 'http://www.w3.org/2000/svg';
  const total = parts.reduce((sum, part) => sum + part, 0) || 1;
  const svg = document.createElementNS(ns, 'svg');
  svg.setAttribute('viewBox', '0 0 100 4');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('class', 'bar');
  svg.setAttribute('aria-hidden', 'true');
  let x = 0;
  parts.forEach((part, index) => {
    const rect = document.createElementNS(ns, 'rect');
    const width = (part / total) * 100;
    rect.setAttribute('x', String(x));
    rect.setAttribute('width', String(width));
    rect.setAttribute('height', '4');
    rect.setAttribute('class', `p${index}`);
    svg.append(rect);
    x += width;
  });
  return svg;
}
