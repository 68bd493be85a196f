/** Pieces that several screens share. */
import { append, h, icon, uid, words } from './dom.js';

/** @typedef {import('./element.js').Context} Context */

/** Picture and tone of each state. Words come from the phrases; a colour never stands alone. */
const TONES = ({
  draft: ['clock', 'plain'], active: ['ok', 'ok'], paused: ['pause', 'plain'], 'needs-attention': ['warn', 'warn'], removing: ['clock', 'plain'],
  queued: ['clock', 'plain'], running: ['run', 'info'], waiting: ['clock', 'warn'], cancelling: ['run', 'plain'],
  succeeded: ['ok', 'ok'], failed: ['fail', 'danger'], cancelled: ['stop', 'plain'], expired: ['fail', 'danger'],
  unknown: ['plug', 'plain'], connected: ['ok', 'ok'], degraded: ['warn', 'warn'], 'needs-reconnect': ['fail', 'danger'],
  installed: ['ok', 'ok'],
});

/**
 * A state as picture and word.
 * @param {Context} cx
 * @param {string} group `state`, `status` or `health`
 * @param {string} name
 */
export function badge(cx, group, name) {
  const [picture, tone] = TONES[name] ?? ['clock', 'plain'];
  const key = `${group}.${name}`;
  return h('span', { class: `badge ${tone}`, part: 'badge', 'data-state': name }, icon(picture), cx.i18n.has(key) ? cx.t(key) : name);
}

/** First letters on a tinted ground, in place of a logo. @param {string} title @param {string} name */
export function monogram(title, name) {
  const letters = title.trim().split(/\s+/).slice(0, 2).map((word) => [...word][0] ?? '').join('').toUpperCase();
  let hue = 0;
  for (const char of name) hue = (hue * 31 + (char.codePointAt(0) ?? 0)) % 6;
  return h('span', { class: `mono hue${hue}`, 'aria-hidden': 'true' }, letters);
}

/**
 * A problem as one sentence, with the rest behind "Details".
 * @param {Context} cx
 * @param {any} error
 * @param {...unknown} actions
 */
export function problemPanel(cx, error, ...actions) {
  const problem = error?.problem ?? {};
  const facts = [
    problem.detail ?? (error?.problem ? undefined : String(error?.message ?? error)),
    ...(error?.errors ?? []).map(({ pointer, message }) => `${pointer || '/'}: ${message}`),
    problem.code && cx.t('problem.code', { code: problem.code }),
    problem.retry_at && cx.t('problem.retry', { time: cx.i18n.relative(problem.retry_at) }),
    problem.instance && cx.t('problem.instance', { instance: problem.instance }),
  ].filter(Boolean);
  return h('div', { class: 'panel danger', role: 'alert', part: 'problem' }, icon('fail'), h('div', null,
    h('p', { class: 'strong' }, cx.sentence(error)),
    facts.length > 0 && h('details', null, h('summary', null, cx.t('details')), facts.map((fact) => h('p', { class: 'detail' }, fact))),
    actions.length > 0 && h('p', { class: 'actions' }, actions)));
}

/** A message in a tinted box. @param {'info' | 'warn' | 'ok' | 'danger'} tone @param {...unknown} children */
export function notice(tone, ...children) {
  const picture = ({ info: 'clock', warn: 'warn', ok: 'ok', danger: 'fail' })[tone];
  return h('div', { class: `panel ${tone}` }, icon(picture), h('div', null, children));
}

/** What a screen shows when there is nothing to show. @param {string} title @param {string} text @param {...unknown} actions */
export const empty = (title, text, ...actions) =>
  h('div', { class: 'empty' }, h('p', { class: 'strong' }, title), h('p', null, text), actions.length > 0 && h('p', { class: 'actions' }, actions));

/**
 * A button.
 * @param {string} label
 * @param {(event: Event) => unknown} onclick
 * @param {Record<string, unknown>} [props]
 */
export const button = (label, onclick, { picture, ...props } = {}) =>
  h('button', { type: 'button', part: 'button', onclick, ...props }, picture && icon(picture), label);

/**
 * Runs something once at a time: the button says that it is busy and a second click does nothing.
 * @param {HTMLElement} control
 * @param {() => Promise<unknown>} work
 */
export async function busy(control, work) {
  if (control.getAttribute('aria-disabled') === 'true') return;
  control.setAttribute('aria-disabled', 'true');
  control.classList.add('busy');
  try {
    await work();
  } finally {
    control.removeAttribute('aria-disabled');
    control.classList.remove('busy');
  }
}

/** The heading of a screen; it takes the focus when the screen appears. @param {unknown[]} children */
export const heading = (...children) => h('h2', { tabindex: '-1', part: 'heading' }, children);

/**
 * A form with an error summary above it.
 * @param {Context} cx
 * @param {object} how
 * @param {ReturnType<typeof import('./form.js').schemaForm>[]} how.forms
 * @param {unknown[]} [how.body] what is shown; the forms unless given
 * @param {string} how.submit the button's label
 * @param {() => Promise<unknown>} how.send
 * @param {(problems: {pointer: string, message: string}[]) => {field: any, message: string}[]} how.show
 * @param {() => {field: any, message: string}[]} [how.check] further checks of the caller
 * @param {unknown[]} [how.actions] beside the button
 * @param {(error: any) => boolean} [how.caught] whether the caller has dealt with an error
 */
export function formShell(cx, { forms, body = forms.map((form) => form.node), submit, send, show, check, actions = [], caught }) {
  const summary = h('div', { class: 'summary' });
  const primary = h('button', { type: 'submit', class: 'primary', part: 'button primary' }, submit);
  const complain = (problems, title = cx.t('form.problem', { n: problems.length })) => {
    const panel = h('div', { class: 'panel danger', role: 'alert', tabindex: '-1', part: 'problem' }, icon('fail'), h('div', null,
      h('p', { class: 'strong' }, title),
      h('ul', null, problems.map(({ field, message }) => h('li', null, field
        ? button(`${field.label}: ${message}`, () => field.focus(), { class: 'link', part: 'link' })
        : message)))));
    summary.replaceChildren(panel);
    panel.focus();
  };
  const form = h('form', {
    novalidate: true,
    onsubmit: (event) => {
      event.preventDefault();
      busy(primary, async () => {
        summary.replaceChildren();
        const wrong = [...forms.flatMap((part) => part.check()), ...(check?.() ?? [])];
        if (wrong.length) return complain(wrong);
        try {
          await send();
        } catch (error) {
          if (cx.signal.aborted || caught?.(error)) return;
          if (error.errors?.length) complain(show(error.errors), cx.sentence(error));
          else {
            const panel = problemPanel(cx, error);
            panel.tabIndex = -1;
            summary.replaceChildren(panel);
            panel.focus();
          }
        }
      });
    },
  }, summary, body, h('div', { class: 'actions' }, primary, actions));
  return { node: form, complain, summary };
}

/**
 * A modal dialog; answers when it has closed.
 * @param {Context} cx
 * @param {string} title
 * @param {(close: () => void) => unknown[]} content
 * @returns {Promise<void>}
 */
export function dialog(cx, title, content) {
  const id = uid();
  const before = cx.root.activeElement;
  return new Promise((resolve) => {
    const box = h('dialog', { 'aria-labelledby': id, part: 'dialog' });
    const close = () => box.close();
    append(box, [h('h3', { id }, title), content(close)]);
    box.addEventListener('close', () => {
      box.remove();
      if (before?.isConnected) before.focus();
      resolve();
    });
    cx.signal.addEventListener('abort', close);
    cx.root.append(box);
    box.showModal();
  });
}

/** The name of a flow for people. @param {{name: string}} flow */
export const flowName = ({ name }) => words(name);

/** What starts a flow, in words. @param {Context} cx @param {any} flow */
export function triggerWords(cx, { trigger }) {
  if (trigger?.kind === 'schedule') return trigger.schedule ? cx.i18n.cron(trigger.schedule) : cx.t('trigger.schedule');
  if (trigger?.kind === 'event') return cx.t('trigger.on', { event: trigger.event ?? '' });
  return cx.t(trigger?.kind === 'poll' ? 'trigger.by-poll' : 'trigger.by-call');
}

/** A moment, relative to now, with the exact time for those who point at it. @param {Context} cx @param {string} time */
export const moment = (cx, time) => h('time', { datetime: time, title: cx.i18n.date(time) }, cx.i18n.relative(time));
