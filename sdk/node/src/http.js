// Requests over the connections of the integration. The supervisor's broker adds the credential; it is never here.

import { send } from "./send.js";
import { CredentialsRefused, Failed, Later, Never } from "./errors.js";

/** An answer, of any status. */
export class Answer {
  constructor(status, headers, body) {
    this.status = status;
    this.headers = headers;
    this.body = body;
  }

  get ok() {
    return this.status < 400;
  }

  get text() {
    return new TextDecoder().decode(this.body);
  }

  json() {
    return JSON.parse(this.text);
  }

  /** The code of the supervisor's own error, if it and not the provider has answered. */
  get refusedBy() {
    return this.headers.get("xp-error") ?? undefined;
  }

  /** Answers itself, or throws what the status means for the run. */
  check() {
    if (this.ok) return this;
    const message = `HTTP ${this.status}: ${this.text.slice(0, 500).trim()}`;
    const after = Number(this.headers.get("retry-after") || NaN);
    const options = { code: this.refusedBy ?? `http-${this.status}` };
    if (Number.isFinite(after)) options.afterMs = after * 1000;
    if (this.refusedBy !== undefined) {
      const verdict = this.#problem()?.retry;
      if (verdict === "reauthorize") throw new CredentialsRefused(message);
      if (verdict === "later") throw new Later(message, options);
      throw new Never(message, options);
    }
    if (this.status === 401) throw new CredentialsRefused(message);
    const later = [408, 425, 429].includes(this.status) || this.status >= 500;
    throw later ? new Later(message, options) : new Never(message, options);
  }

  #problem() {
    try {
      return this.json();
    } catch {
      return undefined;
    }
  }
}

/** One of the integration's connections. */
export class Connection {
  #base;
  #headers;
  #socket;

  constructor(base, headers = {}, socket = undefined) {
    this.#base = base.replace(/\/+$/, "");
    this.#headers = headers;
    this.#socket = socket;
  }

  /** Sends a request to a path below the connection's address and answers with whatever comes back. */
  async request(method, path, { query, json, body, headers, effect, timeoutMs = 60_000 } = {}) {
    const url = new URL(`${this.#base}/${String(path).replace(/^\/+/, "")}`);
    for (const [name, value] of Object.entries(query ?? {})) {
      for (const one of Array.isArray(value) ? value : [value]) url.searchParams.append(name, one);
    }
    const sent = new Headers(this.#headers);
    if (json !== undefined) {
      body = JSON.stringify(json);
      sent.set("content-type", "application/json");
    }
    if (effect !== undefined) sent.set("xp-effect-key", effect);
    for (const [name, value] of new Headers(headers)) sent.set(name, value);
    const content = body === undefined ? undefined : Buffer.from(await new Response(body).arrayBuffer());
    const signal = AbortSignal.timeout(timeoutMs);
    try {
      const answer = await send(url, { method, headers: Object.fromEntries(sent), signal, socketPath: this.#socket }, content);
      return new Answer(answer.status, answer.headers, new Uint8Array(answer.body));
    } catch (cause) {
      const why = cause.cause?.message ?? cause.message;
      throw new Later(`no answer from ${method} ${path}: ${why}`, { code: "unreachable", cause });
    }
  }

  /** As `request`, and throws if the status is 400 or above. */
  async get(path, options) {
    return (await this.request("GET", path, options)).check();
  }
  async post(path, options) {
    return (await this.request("POST", path, options)).check();
  }
  async put(path, options) {
    return (await this.request("PUT", path, options)).check();
  }
  async patch(path, options) {
    return (await this.request("PATCH", path, options)).check();
  }
  async delete(path, options) {
    return (await this.request("DELETE", path, options)).check();
  }
}

export function overBroker(broker, slot, socket) {
  if (!broker) throw new Failed("there is no broker here: the script runs without one", { code: "no-broker" });
  return new Connection(`${broker.replace(/\/+$/, "")}/c/${encodeURIComponent(slot)}`, {}, socket);
}
