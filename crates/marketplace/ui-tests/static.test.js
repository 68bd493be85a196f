/** What can be told from the files alone: no way to markup, every phrase, the budget. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { UI } from './mock.js';

const files = readdirSync(UI);
const text = (name) => readFileSync(UI + name, 'utf8');

test('no file has a way from text to markup or to code', () => {
  const forbidden = /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|javascript:|style=|srcdoc|setHTML|parseHTML|createContextualFragment|DOMParser/i;
  for (const name of files) assert.doesNotMatch(text(name).replace(/text\/javascript/g, ''), forbidden, name);
  assert.doesNotMatch(text('index.html'), /<style|<script(?![^>]*src=)|\son\w+=/i);
});

test('no file is longer than the house style allows', () => {
  for (const name of files) assert.ok(text(name).split('\n').length <= 400, name);
});

test('every phrase that is used exists, and every one that exists is used', async () => {
  const { default: en } = await import('../ui/en.js');
  const code = files.filter((name) => name.endsWith('.js') && !/^(en|de)\.js$/.test(name)).map(text).join('');
  for (const [, key] of code.matchAll(/\bt\('([^']+)'/g)) assert.ok(key in en, `${key} is missing`);
  const groups = [...code.matchAll(/(?:\bt|has)\(`([\w-]+\.)\$\{|`(state|status|health)\./g)].map(([, group]) => group).filter(Boolean);
  for (const group of groups) assert.ok(Object.keys(en).some((key) => key.startsWith(group)), `${group} is missing`);
  const quoted = new Set([...code.matchAll(/'([\w.-]+)'/g)].map(([, key]) => key));
  for (const key of Object.keys(en)) {
    assert.ok(quoted.has(key) || [...groups, 'state.', 'status.', 'health.'].some((group) => key.startsWith(group)), `${key} is not used`);
  }
});

test('other languages have no phrase that English lacks, and keep its parameters', async () => {
  const { default: en } = await import('../ui/en.js');
  const { default: de } = await import('../ui/de.js');
  const parameters = (phrase) => [...JSON.stringify(phrase).matchAll(/\{(\w+)\}/g)].map(([, name]) => name).filter((name, at, all) => all.indexOf(name) === at).sort();
  for (const [key, phrase] of Object.entries(de)) {
    assert.ok(key in en, key);
    assert.equal(typeof phrase, typeof en[key], key);
    if (typeof phrase === 'string') assert.deepEqual(parameters(phrase), parameters(en[key]), key);
  }
});

test('every code that a customer can meet has a sentence', async () => {
  const { default: en } = await import('../ui/en.js');
  const source = readFileSync(new URL('../../core/src/error/code.rs', import.meta.url), 'utf8');
  const codes = [...source.matchAll(/^ {4}\w+ = "([a-z-]+)", (\w+),/gm)];
  assert.ok(codes.length > 40);
  // Mistakes of a caller's program, of an author who publishes, and of the host's set-up: the server's own title says them.
  const others = ['body-malformed', 'content-type-unsupported', 'id-malformed', 'schedule-invalid', 'key-reused', 'key-missing', 'key-malformed', 'body-too-slow', 'method-not-allowed', 'revision-required', 'lease-stale', 'state-conflict', 'artifact-invalid', 'dependencies-failed'];
  for (const [, code, kind] of codes) {
    if (['Setup', 'Storage'].includes(kind) || others.includes(code)) continue;
    assert.ok(`error.${code}` in en, `error.${code} has no sentence`);
  }
});

test('the budget', () => {
  const size = (name) => gzipSync(text(name), { level: 9 }).length;
  const of = (names) => names.reduce((sum, name) => sum + size(name), 0);
  /** What a module imports at once, and what that imports. */
  const closure = (names) => {
    const all = new Set(names);
    for (const name of all) if (name.endsWith('.js')) for (const [, other] of text(name).matchAll(/^(?:import|\} from)[^;]*?'\.\/([\w.]+)'/gm)) all.add(other);
    return [...all];
  };
  const first = closure(['index.html', 'page.css', 'element.js', 'catalogue.js']);
  const languages = ['de.js'];
  const all = files.filter((name) => !languages.includes(name));
  const one = gzipSync(all.map(text).join(''), { level: 9 }).length;
  for (const name of files) console.log(`${String(size(name)).padStart(6)}  ${name}`);
  console.log(`gzip: ${of(first)} bytes before the first screen, ${of(all)} for all screens (${one} as one stream), languages ${of(languages)}`);
  assert.ok(of(first) <= 30 * 1024, `the first screen takes ${of(first)} bytes`);
  assert.ok(one <= 45 * 1024, `all screens take ${one} bytes`);
});
