/** Phrases and the ways to write times, numbers and durations in one language. */
import en from './en.js';

/** Languages beside English, loaded when they are asked for. */
const LANGUAGES = ({
  de: () => import('./de.js'),
});

const UNITS = ([
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
]);

/**
 * Prepares a language; unknown ones are written in English, with their own dates and numbers.
 * @param {string} lang a BCP 47 tag
 * @param {Record<string, any>} [overrides] phrases of the host
 */
export async function language(lang, overrides) {
  let tag = lang;
  try {
    Intl.getCanonicalLocales(lang);
  } catch {
    tag = 'en';
  }
  const table = await LANGUAGES[tag.split('-')[0]]?.().then((module) => module.default, () => undefined);
  return new I18n(tag, { ...en, ...table, ...overrides });
}

export class I18n {
  /**
   * @param {string} lang
   * @param {Record<string, any>} table
   */
  constructor(lang, table) {
    this.lang = lang;
    this.table = table;
    this.plural = new Intl.PluralRules(lang);
    this.numbers = new Intl.NumberFormat(lang, { maximumFractionDigits: 1 });
    this.ago = new Intl.RelativeTimeFormat(lang, { numeric: 'auto' });
    this.dates = new Intl.DateTimeFormat(lang, { dateStyle: 'medium', timeStyle: 'short' });
    this.clock = new Intl.DateTimeFormat(lang, { timeStyle: 'medium' });
  }

  /**
   * A phrase; `{name}` stands for a parameter, and `n` chooses among plural forms.
   * @param {string} key
   * @param {Record<string, any>} [params]
   * @returns {string}
   */
  t(key, params = {}) {
    let phrase = this.table[key] ?? key;
    if (typeof phrase === 'object') phrase = phrase[this.plural.select(params.n ?? 0)] ?? phrase.other;
    return phrase.replace(/\{(\w+)\}/g, (all, name) =>
      typeof params[name] === 'number' ? this.numbers.format(params[name]) : String(params[name] ?? all));
  }

  /** @param {string} key */
  has(key) {
    return key in this.table;
  }

  /**
   * A date and time.
   * @param {string} time RFC 3339
   */
  date(time) {
    const date = new Date(time);
    return Number.isNaN(date.getTime()) ? String(time) : this.dates.format(date);
  }

  /**
   * The time of day.
   * @param {string} time RFC 3339
   */
  time(time) {
    const date = new Date(time);
    return Number.isNaN(date.getTime()) ? String(time) : this.clock.format(date);
  }

  /**
   * How long ago, or in how long; a date when it is more than a week.
   * @param {string} time RFC 3339
   */
  relative(time) {
    const delta = new Date(time).getTime() - Date.now();
    if (Number.isNaN(delta) || Math.abs(delta) > 7 * 86_400_000) return this.date(time);
    const [unit, size] = UNITS.find(([, size]) => Math.abs(delta) >= size) ?? ['second', 1000];
    return this.ago.format(Math.round(delta / size), unit);
  }

  /**
   * A duration.
   * @param {number} ms
   */
  duration(ms) {
    const [unit, size] = ms < 1000 ? ['millisecond', 1] : ms < 60_000 ? ['second', 1000] : ms < 3_600_000 ? ['minute', 60_000] : ['hour', 3_600_000];
    return new Intl.NumberFormat(this.lang, { style: 'unit', unit: String(unit), unitDisplay: 'short', maximumFractionDigits: 1 })
      .format(ms / Number(size));
  }

  /**
   * A schedule in words where it is a simple one, else as it is written.
   * @param {{cron?: string, timezone?: string, every_ms?: number}} schedule
   */
  cron({ cron = '', timezone = 'UTC', every_ms: step }) {
    if (step) {
      const [unit, size] = [['hours', 3600000], ['minutes', 60000], ['seconds', 1000]].find(([, ms]) => step % Number(ms) === 0) ?? ['seconds', 1000];
      return this.t(`cron.${unit}`, { n: step / Number(size) });
    }
    const fields = cron.trim().split(/\s+/);
    const seconds = fields.length === 6 ? fields.shift() ?? '0' : '0';
    const [minute, hour, ...rest] = fields;
    const every = (field) => /^(\*|\*\/\d+)$/.test(field) ? Number(field.slice(2) || 1) : 0;
    if (rest.join(' ') === '* * *') {
      if (every(seconds) && minute === '*' && hour === '*') return this.t('cron.seconds', { n: every(seconds) });
      if (every(minute) && hour === '*') return this.t('cron.minutes', { n: every(minute) });
      if (/^\d+$/.test(minute) && every(hour)) return this.t('cron.hours', { n: every(hour) });
      if (/^\d+$/.test(minute) && /^\d+$/.test(hour)) {
        return this.t('cron.daily', { time: `${hour.padStart(2, '0')}:${minute.padStart(2, '0')}`, zone: timezone });
      }
    }
    return `${cron} (${timezone})`;
  }
}
