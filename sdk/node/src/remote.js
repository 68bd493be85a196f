// The http binding: the same messages, fetched and posted.

import { setTimeout as pause } from "node:timers/promises";
import { Agent as PlainAgent } from "node:http";
import { Agent as SecureAgent } from "node:https";
import { Messages } from "./messages.js";
import { send } from "./send.js";

// The supervisor answers within 25 seconds, with or without messages.
const PATIENCE = 40_000;
const TRIES = 5;

export class Remote extends Messages {
  name = "http";
  #url;
  #authorization;
  #agent;
  #batch = 0;
  #posted = Promise.resolve();
  #failure;

  constructor(env, prefix) {
    super();
    this.#url = `${env[`${prefix}_HTTP_URL`]}/messages`;
    const Agent = this.#url.startsWith("https:") ? SecureAgent : PlainAgent;
    this.#agent = new Agent({ keepAlive: true, maxSockets: 4 });
    this.#authorization = `Bearer ${env[`${prefix}_HTTP_TOKEN`]}`;
  }

  /** A request whose answer was lost is made again: a batch counts once. */
  async #request(query, options = {}) {
    for (let attempt = 1; ; attempt++) {
      try {
        const headers = { authorization: this.#authorization, ...options.headers };
        const signal = AbortSignal.timeout(PATIENCE);
        const { method = "GET", body: content } = options;
        const answer = await send(this.#url + query, { method, headers, signal, agent: this.#agent }, content);
        const body = answer.body.toString("utf8");
        if (answer.status >= 400) throw new Refusal(`the supervisor answered with HTTP ${answer.status}`);
        return { status: answer.status, batch: Number(answer.headers.get("xp-batch")), body };
      } catch (error) {
        if (error instanceof Refusal || attempt === TRIES) throw error;
        await pause(100 * 2 ** attempt);
      }
    }
  }

  carry(body) {
    if (this.#failure) throw this.#failure;
    const headers = { "xp-batch": String(++this.#batch) };
    const post = () => this.#request("", { method: "POST", body, headers });
    this.#posted = this.#posted.then(() => this.#failure ?? post()).catch((error) => {
      this.#failure ??= error;
      this.end(error);
    });
  }

  /** Resolves when everything that was said has arrived. */
  async flush() {
    await this.#posted;
    if (this.#failure) throw this.#failure;
  }

  async listen() {
    try {
      for (let after = 0; ; ) {
        const { status, batch, body } = await this.#request(`?after=${after}`);
        if (status !== 200) continue;
        after = batch;
        for (const line of body.split("\n")) this.hear(line);
      }
    } catch (error) {
      this.end(error);
    }
  }
}

class Refusal extends Error {}
