/** Fields of a form that hold one value. Each is a `Field`; how they are put together stands in form.js. */
import { h, uid } from './dom.js';

/**
 * @typedef {Record<string, any>} Schema
 *
 * @typedef {object} Spec what a field is made from
 * @property {any} cx the view's context
 * @property {Schema} schema resolved: without $ref, null taken out
 * @property {Schema} root the document that local references point into
 * @property {string} label
 * @property {boolean} required
 * @property {boolean} nullable
 * @property {any} value the present value, or undefined
 * @property {number} depth
 * @property {boolean} [flat] draw no frame around the object
 * @property {Environment} env
 *
 * @typedef {object} Environment what a form needs from around it
 * @property {(source: string, search: string, after: string | null) => Promise<{items: {value: string, label: string}[], next: string | null}>} [choices]
 *
 * @typedef {object} Field
 * @property {HTMLElement | null} node null when there is nothing to show
 * @property {string} label
 * @property {() => unknown} read undefined leaves the value out
 * @property {() => string} text the value in words; empty when there is none
 * @property {(path: string[]) => Field} at the deepest field on a path
 * @property {(message: string) => void} fail shows an error, or takes it away when empty
 * @property {() => void} focus
 * @property {() => {field: Field, message: string}[]} check what the browser can already tell is wrong
 * @property {() => Field[]} [parts]
 */

/** @param {unknown} value */
export const present = (value) => value !== undefined && value !== null && value !== '';

/**
 * Label, hint, control and error in the right order, tied together for assistive technology.
 * @param {Spec} spec
 * @param {HTMLElement} control the element that is described; for a group its fieldset's first control takes focus
 * @param {{group?: boolean, body?: HTMLElement, inline?: boolean, note?: string}} [options]
 */
export function frame(spec, control, { group = false, body = control, inline = false, note } = {}) {
  const { cx, schema, label, required } = spec;
  const example = Array.isArray(schema.examples) && ['string', 'number'].includes(typeof schema.examples[0])
    && cx.t('form.example', { value: schema.examples[0] });
  const hintText = [schema.description, note, example].filter(Boolean).join('\n');
  const error = h('p', { id: uid(), class: 'error', part: 'error', hidden: true });
  const hint = hintText && h('p', { id: uid(), class: 'hint' }, hintText);
  const optional = !required && !inline && !group && h('span', { class: 'optional' }, cx.t('form.optional'));
  if (!group && !control.id) control.id = uid();
  const node = group
    ? h('fieldset', { class: 'field group' }, h('legend', null, label), hint, body, error)
    : inline
      ? h('div', { class: 'field inline' }, body, h('div', null, h('label', { for: control.id }, label), hint, error))
      : h('div', { class: 'field' }, h('label', { for: control.id }, label, optional), hint, body, error);
  const described = group ? node : control;
  const fail = (message) => {
    error.textContent = message;
    error.hidden = !message;
    node.classList.toggle('bad', Boolean(message));
    if (message && !group) control.setAttribute('aria-invalid', 'true');
    else control.removeAttribute('aria-invalid');
    const ids = [hint && hint.id, message && error.id].filter(Boolean).join(' ');
    if (ids) described.setAttribute('aria-describedby', ids);
    else described.removeAttribute('aria-describedby');
  };
  fail('');
  const first = 'input:not([hidden]), select, textarea, button';
  const focus = () => (group ? node.querySelector(first) : control)?.focus();
  return { node, fail, focus };
}

/**
 * A field over one control.
 * @param {Spec} spec
 * @param {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} control
 * @param {{read: () => unknown, text?: () => string, body?: HTMLElement, inline?: boolean, note?: string, wrong?: () => string}} how
 * @returns {Field}
 */
export function single(spec, control, { read, text, wrong, ...options }) {
  const { node, fail, focus } = frame(spec, control, options);
  if (spec.schema.readOnly) control.disabled = true;
  control.addEventListener('input', () => fail(''));
  const field = {
    node,
    label: spec.label,
    read,
    text: text ?? (() => control.value),
    at: () => field,
    fail,
    focus,
    check() {
      const missing = control.validity.valueMissing && spec.cx.t('form.required');
      const message = missing || (control.validity.valid ? wrong?.() : control.validationMessage);
      return message ? [{ field, message }] : [];
    },
  };
  return field;
}

/** What an emptied field stands for. @param {Spec} spec */
function nothing({ schema, required, nullable }) {
  if (nullable) return required || present(schema.default) ? null : undefined;
  return schema.type === 'string' && (required || present(schema.default)) ? '' : undefined;
}

/** An instant as the browser's local control wants it. @param {unknown} time */
function local(time) {
  const date = new Date(String(time));
  if (Number.isNaN(date.getTime())) return '';
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

const INPUT_TYPES = ({
  email: 'email', uri: 'url', url: 'url', date: 'date', time: 'time', 'date-time': 'datetime-local', password: 'password',
});

/** A line or a paragraph of text. @param {Spec} spec */
export function textField(spec) {
  const { schema, value } = spec;
  const type = INPUT_TYPES[schema.format] ?? 'text';
  const props = {
    part: 'input',
    required: spec.required && !spec.nullable && schema.default !== '',
    minlength: schema.minLength,
    maxlength: schema.maxLength,
    autocomplete: 'off',
  };
  const long = schema['x-crosspoint']?.widget === 'textarea';
  const control = (long ? h('textarea', { ...props, rows: 4 }) : h('input', { ...props, type }));
  if (!long && schema.pattern && type === 'text') {
    try {
      new RegExp(schema.pattern, 'v');
      control.pattern = schema.pattern.replace(/^\^|\$$/g, '');
    } catch { /* another dialect: the server decides */ }
  }
  const instant = type === 'datetime-local';
  if (present(value)) control.value = instant ? local(value) : String(value);
  return single(spec, control, {
    read: () => {
      if (!control.value) return nothing(spec);
      return instant ? new Date(control.value).toISOString() : control.value;
    },
  });
}

/** A number. @param {Spec} spec */
export function numberField(spec) {
  const { schema, value, cx } = spec;
  const whole = schema.type === 'integer';
  const control = (h('input', {
    part: 'input',
    type: 'number',
    inputmode: whole ? 'numeric' : 'decimal',
    class: 'short',
    required: spec.required && !spec.nullable,
    min: schema.minimum ?? (whole && schema.exclusiveMinimum !== undefined ? schema.exclusiveMinimum + 1 : undefined),
    max: schema.maximum ?? (whole && schema.exclusiveMaximum !== undefined ? schema.exclusiveMaximum - 1 : undefined),
    step: schema.multipleOf ?? (whole ? 1 : 'any'),
  }));
  if (present(value)) control.value = String(value);
  return single(spec, control, {
    read: () => (control.value === '' ? nothing(spec) : Number(control.value)),
    text: () => (control.value === '' ? '' : cx.i18n.numbers.format(Number(control.value))),
  });
}

/** Yes or no; with a third choice when it may be absent. @param {Spec} spec */
export function booleanField(spec) {
  const { cx, value } = spec;
  if (spec.nullable) {
    const options = [{ value: true, label: cx.t('yes') }, { value: false, label: cx.t('no') }];
    return selectField(spec, options);
  }
  const control = h('input', { type: 'checkbox', part: 'checkbox' });
  control.checked = value === true;
  return single(spec, control, {
    inline: true,
    read: () => control.checked,
    text: () => cx.t(control.checked ? 'yes' : 'no'),
  });
}

/**
 * One of a list: radio buttons for few that are described, else a select.
 * @param {Spec} spec
 * @param {{value: any, label: string, hint?: string}[]} options
 * @returns {Field}
 */
export function selectField(spec, options) {
  const { cx, value, required, nullable } = spec;
  const chosen = options.findIndex((option) => option.value === value);
  if (options.length <= 5 && options.some((option) => option.hint) && required && !nullable) {
    return radioField(spec, options, chosen);
  }
  const none = (nullable || !required || chosen < 0) && h('option', { value: '' }, cx.t(required && !nullable ? 'form.choose' : 'form.none'));
  const control = h('select', { part: 'input', required: required && !nullable }, none,
    options.map((option, index) => h('option', { value: index, selected: index === chosen }, option.label)));
  const option = () => (control.value === '' ? undefined : options[Number(control.value)]);
  return single(spec, control, {
    read: () => (option() ? option()?.value : nullable ? nothing(spec) : undefined),
    text: () => option()?.label ?? '',
  });
}

/**
 * Radio buttons.
 * @param {Spec} spec
 * @param {{value: any, label: string, hint?: string}[]} options
 * @param {number} chosen
 * @param {(index: number) => void} [changed]
 * @param {HTMLElement} [extra] shown below the buttons
 * @returns {Field & {index: () => number}}
 */
export function radioField(spec, options, chosen, changed, extra) {
  const name = uid();
  const inputs = options.map((_, index) => {
    const input = h('input', { type: 'radio', name, id: uid(), value: index, part: 'radio' });
    input.checked = index === chosen;
    return input;
  });
  const index = () => inputs.findIndex((input) => input.checked);
  const body = h('div', null, h('div', { class: 'radios' }, options.map((option, at) => {
    const hint = option.hint && h('p', { class: 'hint', id: uid() }, option.hint);
    if (hint) inputs[at].setAttribute('aria-describedby', hint.id);
    return h('div', { class: 'radio' }, inputs[at], h('div', { class: 'grow' }, h('label', { for: inputs[at].id }, option.label), hint));
  })), extra);
  const { node, fail } = frame(spec, body, { group: true, body });
  node.addEventListener('change', (event) => {
    if (!inputs.includes(event.target)) return;
    fail('');
    changed?.(index());
  });
  const field = {
    node,
    label: spec.label,
    index,
    read: () => options[index()]?.value,
    text: () => options[index()]?.label ?? '',
    at: () => field,
    fail,
    focus: () => (inputs[index()] ?? inputs[0]).focus(),
    check: () => (index() < 0 && spec.required ? [{ field, message: spec.cx.t('form.required') }] : []),
  };
  return field;
}

/** Several of a list. @param {Spec} spec @param {{value: any, label: string}[]} options @returns {Field} */
export function checkboxesField(spec, options) {
  const inputs = options.map((option) => {
    const input = h('input', { type: 'checkbox', id: uid(), part: 'checkbox' });
    input.checked = Array.isArray(spec.value) && spec.value.includes(option.value);
    return input;
  });
  const body = h('div', { class: 'radios' }, options.map((option, at) => h('div', { class: 'radio' }, inputs[at],
    h('label', { for: inputs[at].id }, option.label))));
  const { node, fail, focus } = frame(spec, body, { group: true, body });
  const chosen = () => options.filter((_, at) => inputs[at].checked);
  const field = {
    node,
    label: spec.label,
    read: () => chosen().map((option) => option.value),
    text: () => chosen().map((option) => option.label).join(', '),
    at: () => field,
    fail,
    focus,
    check: () => [],
  };
  node.addEventListener('change', () => fail(''));
  return field;
}

/** A secret: it can be set and replaced, never seen. @param {Spec} spec */
export function secretField(spec) {
  const { cx, value } = spec;
  const stored = Boolean(value && typeof value === 'object' && value.set);
  const control = h('input', {
    part: 'input', type: 'password', autocomplete: 'new-password', spellcheck: 'false', required: spec.required && !stored,
  });
  if (typeof value === 'string') control.value = value;
  return single(spec, control, {
    note: stored ? cx.t('form.secret-stored') : undefined,
    read: () => control.value || undefined,
    text: () => (control.value || stored ? cx.t('form.secret-hidden') : ''),
  });
}

/** A value that is not shown. @param {Spec} spec @param {unknown} value @returns {Field} */
export function hiddenField(spec, value) {
  const field = {
    node: null, label: spec.label, read: () => value, text: () => '', at: () => field, fail() {}, focus() {}, check: () => [],
  };
  return field;
}

/** Whatever the form has no control for, as JSON. @param {Spec} spec */
export function jsonField(spec) {
  const { cx, value } = spec;
  const control = h('textarea', {
    part: 'input', class: 'code', rows: 5, spellcheck: 'false', required: spec.required && !spec.nullable,
  });
  if (value !== undefined) control.value = JSON.stringify(value, null, 2);
  return single(spec, control, {
    note: cx.t('form.json'),
    read: () => {
      try {
        return control.value.trim() ? JSON.parse(control.value) : nothing(spec);
      } catch {
        return undefined;
      }
    },
    wrong: () => {
      try {
        if (control.value.trim()) JSON.parse(control.value);
        return '';
      } catch (error) {
        return cx.t('form.json-wrong', { error: error.message });
      }
    },
  });
}
