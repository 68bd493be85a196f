/** The marketplace's HTTP API: one call, one kind of error. */

/**
 * @typedef {object} Problem a problem document (RFC 9457) with Crosspoint's additions
 * @property {string} [type]
 * @property {string} [title]
 * @property {string} [detail]
 * @property {string} [code]
 * @property {string} [retry_at]
 * @property {string} [instance]
 * @property {{pointer: string, message: string}[]} [errors]
 */

/** What the API refused, or why it could not be asked. */
export class ApiError extends Error {
  /**
   * @param {Problem} problem
   * @param {number} [status] 0 when there was no answer
   */
  constructor(problem, status = 0) {
    super(problem.detail || problem.title || problem.code);
    this.problem = problem;
    this.status = status;
    this.code = problem.code ?? 'internal';
    this.errors = Array.isArray(problem.errors) ? problem.errors : [];
  }
}

/**
 * A path whose inserted parts are encoded: `` p`catalogue/${name}` ``.
 * @param {TemplateStringsArray} texts
 * @param {...unknown} parts
 */
export const p = (texts, ...parts) => String.raw({ raw: texts }, ...parts.map((part) => encodeURIComponent(String(part))));

/** How long an answer may take. */
const PATIENCE_MS = 30_000;

export class Api {
  /** @param {string} base absolute URL that ends in `v1/` */
  constructor(base) {
    this.base = base.endsWith('/') ? base : `${base}/`;
  }

  /**
   * Calls the API.
   * @param {string} method
   * @param {string} path below the base
   * @param {{body?: unknown, revision?: string | null, signal?: AbortSignal}} [options] `revision` is the ETag of what
   *   is changed
   * @returns {Promise<{data: any, revision: string | null}>}
   */
  async call(method, path, { body, revision, signal } = {}) {
    const headers = { accept: 'application/json' };
    if (method !== 'GET') headers['x-crosspoint'] = '1';
    if (body !== undefined) headers['content-type'] = 'application/json';
    if (revision) headers['if-match'] = revision;
    const timeout = AbortSignal.timeout(PATIENCE_MS);
    let response, text;
    try {
      response = await fetch(new URL(path, this.base), {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
        credentials: 'same-origin',
        cache: 'no-store',
      });
      text = await response.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError({ code: timeout.aborted ? 'slow' : 'offline', detail: String(error) });
    }
    let data = null;
    try {
      data = text ? JSON.parse(text) : null;
    } catch {
      if (response.ok) throw new ApiError({ code: 'unreadable', detail: `HTTP ${response.status}` }, response.status);
    }
    if (!response.ok) {
      const problem = data && typeof data === 'object' ? data : { detail: `HTTP ${response.status}` };
      throw new ApiError({ code: response.status === 401 ? 'session-missing' : undefined, ...problem }, response.status);
    }
    return { data, revision: response.headers.get('etag') };
  }

  /**
   * Reads.
   * @param {string} path
   * @param {AbortSignal} [signal]
   */
  async get(path, signal) {
    return (await this.call('GET', path, { signal })).data;
  }

  /**
   * Reads all pages of a list, at most ten of them.
   * @param {string} path
   * @param {AbortSignal} [signal]
   * @returns {Promise<any[]>}
   */
  async all(path, signal) {
    const items = [];
    let after = '';
    for (let page = 0; page < 10; page += 1) {
      const part = await this.get(`${path}?limit=100${after}`, signal);
      items.push(...part.items);
      if (!part.next) break;
      after = `&after=${encodeURIComponent(part.next)}`;
    }
    return items;
  }

  /**
   * Does something.
   * @param {string} path
   * @param {unknown} [body]
   */
  async post(path, body) {
    return (await this.call('POST', path, { body })).data;
  }
}
