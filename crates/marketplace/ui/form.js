/**
 * Forms from JSON Schema: the subset that docs/ui.md describes. The server is the only judge of what is valid; the form
 * says early what the browser can see, and shows what the server says at the field that it is about.
 */
import { append, h, words } from './dom.js';
import { dynamicSelect } from './choices.js';
import {
  booleanField, checkboxesField, frame, hiddenField, jsonField, numberField, present, radioField, secretField, selectField, textField,
} from './fields.js';

/** @typedef {import('./fields.js').Schema} Schema @typedef {import('./fields.js').Spec} Spec @typedef {import('./fields.js').Field} Field */

const MAX_DEPTH = 8;

/** The value behind a local reference. @param {Schema} root @param {string} reference */
function lookup(root, reference) {
  if (!reference.startsWith('#')) return undefined;
  return pointer(decodeURIComponent(reference.slice(1))).reduce((at, part) =>
    at && Object.hasOwn(at, part) ? at[part] : undefined, root);
}

/** The parts of a JSON pointer. @param {string} text */
const pointer = (text) => text.split('/').slice(1).map((part) => part.replace(/~1/g, '/').replace(/~0/g, '~'));

/** Two schemas that both hold; what the second says stands. @param {Schema} a @param {Schema} b @returns {Schema} */
const merge = (a, b) => ({
  ...a,
  ...b,
  ...(a.properties && b.properties && { properties: { ...a.properties, ...b.properties } }),
  ...(a.required && b.required && { required: [...a.required, ...b.required] }),
});

/**
 * Follows references, joins `allOf`, and takes null out.
 * @param {any} schema
 * @param {Schema} root
 * @returns {{schema: Schema, nullable: boolean}}
 */
export function resolve(schema, root, depth = 0) {
  if (typeof schema !== 'object' || schema === null || depth > 16) return { schema: {}, nullable: false };
  if (schema.$ref) {
    const { $ref, ...rest } = schema;
    return resolve(merge(lookup(root, $ref) ?? {}, rest), root, depth + 1);
  }
  if (schema.allOf) {
    const { allOf, ...rest } = schema;
    const parts = allOf.map((part) => resolve(part, root, depth + 1).schema);
    return resolve(merge(parts.reduce(merge, {}), rest), root, depth + 1);
  }
  const union = schema.anyOf ? 'anyOf' : 'oneOf';
  const isNull = (option) => option?.type === 'null' || option?.const === null;
  const options = schema[union];
  if (Array.isArray(options) && options.some(isNull)) {
    const others = options.filter((option) => !isNull(option));
    const { [union]: _, ...rest } = schema;
    const inner = others.length === 1 ? merge(others[0], rest) : { ...rest, [union]: others };
    return { schema: resolve(inner, root, depth + 1).schema, nullable: true };
  }
  if (Array.isArray(options) && options.length === 1) {
    const { [union]: _, ...rest } = schema;
    return resolve(merge(options[0], rest), root, depth + 1);
  }
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((type) => type !== 'null');
    const inner = { ...schema, type: types.length === 1 ? types[0] : undefined };
    if (inner.enum) inner.enum = inner.enum.filter((value) => value !== null);
    return { schema: inner, nullable: types.length < schema.type.length };
  }
  return { schema, nullable: false };
}

/** Whether all of a list are plain values. @param {any} list */
const scalars = (list) => Array.isArray(list) && list.every((value) => ['string', 'number', 'boolean'].includes(typeof value));

/** The choices of an enumeration, or null. @param {Schema} schema @param {Schema} root */
function enumeration(schema, root) {
  if (scalars(schema.enum)) return schema.enum.map((value) => ({ value, label: words(String(value)) }));
  const variants = schema.oneOf ?? schema.anyOf;
  if (!Array.isArray(variants)) return null;
  const options = [];
  for (const variant of variants) {
    const one = resolve(variant, root).schema;
    const values = one.const === undefined ? one.enum : [one.const];
    if (!scalars(values)) return null;
    for (const value of values) options.push({ value, label: one.title ?? words(String(value)), hint: one.description });
  }
  return options;
}

/**
 * The field for a schema.
 * @param {Omit<Spec, 'nullable' | 'schema'> & {schema: any}} raw
 * @returns {Field}
 */
function build(raw) {
  const { schema, nullable } = resolve(raw.schema, raw.root);
  const value = raw.value === undefined ? schema.default : raw.value;
  const label = raw.schema?.title ?? (raw.label || schema.title || '');
  const spec = { ...raw, schema, nullable, value, label };
  const widget = schema['x-crosspoint']?.widget;
  if (schema.const !== undefined) return hiddenField(spec, schema.const);
  if (widget === 'hidden') return hiddenField(spec, value);
  if (schema.type === 'null') return hiddenField(spec, null);
  if (widget === 'secret') return secretField(spec);
  if (widget === 'dynamic-select') return dynamicSelect(spec);
  const options = enumeration(schema, spec.root);
  if (options) return selectField(spec, options);
  if (spec.depth > MAX_DEPTH) return jsonField(spec);
  const variants = tagged(schema, spec.root);
  if (variants) return variantField(spec, variants);
  if (schema.oneOf || schema.anyOf) return jsonField(spec);
  switch (schema.type) {
    case 'string': return textField(spec);
    case 'integer':
    case 'number': return numberField(spec);
    case 'boolean': return booleanField(spec);
    case 'array': return arrayField(spec);
    case 'object': return objectField(spec);
    default: return schema.properties ? objectField(spec) : jsonField(spec);
  }
}

/** A child's spec. @param {Spec} spec @param {any} schema @param {string} label @param {any} value @param {boolean} required */
const child = (spec, schema, label, value, required) =>
  ({ cx: spec.cx, root: spec.root, env: spec.env, depth: spec.depth + 1, schema, label, value, required });

/** Fields side by side under one name. @param {Spec} spec @returns {Field} */
function objectField(spec) {
  const { schema, value, cx } = spec;
  const flat = spec.flat || schema['x-crosspoint']?.flat;
  const properties = Object.entries(schema.properties ?? {});
  if (!properties.length) return typeof schema.additionalProperties === 'object' ? mapField(spec) : hiddenField(spec, value ?? {});
  const order = (property) => resolve(property, spec.root).schema['x-crosspoint']?.order ?? 0;
  properties.sort(([, a], [, b]) => order(a) - order(b));
  const fields = properties.map(([key, property]) =>
    ([key, build(child(spec, property, words(key), value?.[key], Boolean(schema.required?.includes(key))))]));
  const body = h('div', { class: 'fields' }, fields.map(([, field]) => field.node));
  const optional = spec.nullable && !flat;
  const toggle = optional ? booleanField({ ...spec, schema: {}, nullable: false, label: cx.t('form.use'), value: present(value) }) : null;
  const used = () => !toggle || toggle.read() === true;
  const wrapped = h('div', null, toggle?.node, body);
  const draw = () => { body.hidden = !used(); };
  wrapped.addEventListener('change', draw);
  draw();
  const framed = flat ? { node: body, fail() {}, focus() { fields[0][1].focus(); } } : frame(spec, wrapped, { group: true, body: wrapped });
  const visible = fields.some(([, field]) => field.node);
  const field = {
    ...framed,
    node: visible ? framed.node : null,
    label: spec.label,
    parts: () => (used() ? fields.map(([, part]) => part) : []),
    read() {
      if (!used()) return spec.required ? null : undefined;
      const out = ({});
      for (const [key, part] of fields) {
        const read = part.read();
        if (read !== undefined) out[key] = read;
      }
      return out;
    },
    text: () => '',
    at: (path) => fields.find(([key]) => key === path[0])?.[1].at(path.slice(1)) ?? field,
    check: () => (used() ? fields.flatMap(([, part]) => part.check()) : []),
  };
  return field;
}

/**
 * The variants of a tagged enumeration, or null: each an object that a constant property or its only property names,
 * or a plain constant.
 * @param {Schema} schema
 * @param {Schema} root
 */
function tagged(schema, root) {
  const variants = schema.oneOf ?? schema.anyOf;
  if (!Array.isArray(variants) || variants.length < 2) return null;
  const out = [];
  for (const raw of variants) {
    const { schema: variant } = resolve(raw, root);
    if (['string', 'number'].includes(typeof variant.const)) {
      out.push({ variant, label: variant.title ?? words(String(variant.const)), fits: (value) => value === variant.const });
      continue;
    }
    const keys = Object.keys(variant.properties ?? {});
    const tag = keys.find((key) => resolve(variant.properties[key], root).schema.const !== undefined);
    if (tag !== undefined) {
      const constant = resolve(variant.properties[tag], root).schema.const;
      out.push({ variant, label: variant.title ?? words(String(constant)), fits: (value) => value?.[tag] === constant });
    } else if (keys.length === 1) {
      out.push({ variant, label: variant.title ?? words(keys[0]), fits: (value) => value instanceof Object && keys[0] in value });
    } else return null;
  }
  return out;
}

/** One of several shapes. @param {Spec} spec @param {NonNullable<ReturnType<typeof tagged>>} variants @returns {Field} */
function variantField(spec, variants) {
  const { value, cx } = spec;
  const options = variants.map(({ variant, label }) => ({ value: undefined, label, hint: variant.description }));
  const open = spec.nullable || !spec.required;
  if (open) options.push({ value: undefined, label: cx.t('form.none'), hint: undefined });
  const fitting = variants.findIndex(({ fits }) => fits(value));
  const start = fitting < 0 ? (open ? variants.length : 0) : fitting;
  const below = h('div', { class: 'below' });
  const made = [];
  const part = (index) => (variants[index] ? made[index] ??= build({
    ...child(spec, { ...variants[index].variant, description: undefined, title: undefined }, '', index === fitting ? value : undefined, true), flat: true,
  }) : undefined);
  const draw = (index) => {
    below.replaceChildren();
    const inner = part(index)?.node;
    if (inner) below.append(inner);
    below.hidden = !inner;
  };
  draw(start);
  const radios = radioField({ ...spec, required: true }, options, start, draw, below);
  const now = () => part(radios.index());
  const field = {
    ...radios,
    parts: () => now()?.parts?.() ?? [],
    read: () => (now() ? now()?.read() : spec.required ? null : undefined),
    at: (path) => (path.length ? now()?.at(path) ?? field : field),
    check: () => now()?.check() ?? [],
  };
  return field;
}

/** A list: check boxes for an enumeration, else rows. @param {Spec} spec @returns {Field} */
function arrayField(spec) {
  const { schema, cx } = spec;
  if (!schema.items || schema.prefixItems) return jsonField(spec);
  const { schema: item } = resolve(schema.items, spec.root);
  const options = enumeration(item, spec.root);
  if (options && schema.uniqueItems !== false) return checkboxesField(spec, options);
  const values = Array.isArray(spec.value) ? spec.value : Array.from({ length: schema.minItems ?? 0 });
  return rowsField(spec, values, schema.maxItems, (value, index) =>
    build(child(spec, schema.items, cx.t('form.item', { label: spec.label, n: index + 1 }), value, true)), {
    read: (rows) => rows.map((row) => row.read()).filter((value) => value !== undefined),
    at: (rows, path) => [rows[Number(path[0])], path.slice(1)],
  });
}

/** Names with values. @param {Spec} spec @returns {Field} */
function mapField(spec) {
  const { schema, cx } = spec;
  return rowsField(spec, Object.entries(spec.value ?? {}), undefined, (entry, index) => build({
    ...child(spec, {
      type: 'object',
      title: cx.t('form.item', { label: spec.label, n: index + 1 }),
      properties: { 0: { type: 'string', title: cx.t('form.key') }, 1: { title: cx.t('form.value'), ...schema.additionalProperties } },
      required: ['0', '1'],
    }, '', entry && { ...entry }, true),
  }), {
    read: (rows) => Object.fromEntries(rows.map((row) => row.read()).filter((row) => row[0]).map((row) => [row[0], row[1]])),
    at: (rows, path) => [rows.find((row) => row.read()[0] === path[0]), ['1', ...path.slice(1)]],
  });
}

/**
 * Rows that can be added and removed.
 * @param {Spec} spec
 * @param {any[]} values
 * @param {number | undefined} most
 * @param {(value: any, index: number) => Field} make
 * @param {{read: (rows: Field[]) => unknown, at: (rows: Field[], path: string[]) => [Field | undefined, string[]]}} how
 * @returns {Field}
 */
function rowsField(spec, values, most, make, how) {
  const { cx } = spec;
  const rows = [];
  const list = h('div', { class: 'rows' });
  const more = h('button', { type: 'button', class: 'small', part: 'button', onclick: () => put(undefined).focus() }, cx.t('form.add'));
  const limit = () => { more.disabled = most !== undefined && rows.length >= most; };
  const put = (value) => {
    const row = make(value, rows.length);
    const line = h('div', { class: 'row' }, row.node, h('button', {
      type: 'button', class: 'small quiet', part: 'button', 'aria-label': cx.t('form.remove-named', { label: row.label }),
      onclick: () => {
        rows.splice(rows.indexOf(row), 1);
        line.remove();
        limit();
        more.focus();
      },
    }, cx.t('form.remove')));
    rows.push(row);
    list.append(line);
    limit();
    return row;
  };
  const body = h('div', null, list, more);
  for (const value of values) put(value);
  limit();
  const { node, fail, focus } = frame(spec, body, { group: true, body });
  const field = {
    node,
    label: spec.label,
    read: () => how.read(rows),
    text: () => rows.map((row) => summary(row).map(([, text]) => text).join(' · ')).filter(Boolean).join('; '),
    at: (path) => {
      const [row, rest] = path.length ? how.at(rows, path) : [undefined, []];
      return row?.at(rest) ?? field;
    },
    fail,
    focus,
    check: () => rows.flatMap((row) => row.check()),
  };
  return field;
}

/** What was entered, as labels and texts. @param {Field} field @returns {[string, string][]} */
function summary(field) {
  const own = field.text();
  return [
    ...(own ? [([field.label, own])] : []),
    ...(field.parts?.() ?? []).flatMap(summary),
  ];
}

/**
 * Draws a form.
 * @param {any} cx the view's context
 * @param {Schema} schema
 * @param {any} value
 * @param {import('./fields.js').Environment} [env]
 */
export function schemaForm(cx, schema, value, env = {}) {
  const root = build({ cx, schema, root: schema, value, label: words(schema.title ?? 'value'), required: true, depth: 0, flat: true, env });
  let failed = [];
  const mark = (problems) => {
    for (const field of failed) field.fail('');
    failed = problems.map(({ field, message }) => (field.fail(message), field));
    return problems;
  };
  return {
    node: append(h('div', { class: 'form' }), [root.node]),
    empty: !root.node,
    read: () => root.read(),
    summary: () => summary(root),
    /** Marks what the browser can tell; empty when it sees nothing wrong. */
    check: () => mark(root.check()),
    /**
     * Shows problems of the server at their fields; those without a field come back in `rest`.
     * @param {{pointer: string, message: string}[]} problems
     * @param {string} [below] the pointer at which this form's value stands in what was sent
     */
    show(problems, below = '') {
      const found = problems.map(({ pointer: at, message }) => {
        const inner = below && (at === below || at.startsWith(`${below}/`)) ? at.slice(below.length) : at;
        const field = root.at(pointer(inner));
        return { field: field === root && root.parts ? null : field, message };
      });
      mark(found.filter(({ field }) => field));
      return found;
    },
  };
}
