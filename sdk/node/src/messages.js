// What the framed and the http binding say, however it is carried.

import { Refused } from "./errors.js";

const SDK = "node/0.1.0";

/** A binding of messages. A carrier gives `name`, `carry(line)` and `listen()`, and calls `hear(line)` and `end()`. */
export class Messages {
  #cancel = () => {};
  #reason;
  #started;
  #ended = false;
  #seq = 0;
  #waiting = new Map();
  #checkpoints = false;

  /** Reads the first message. Ends the process where this version of the protocol is not spoken. */
  async start() {
    this.send({ type: "hello", v: 1, sdk: SDK });
    const first = new Promise((resolve, reject) => (this.#started = { resolve, reject }));
    this.listen();
    const message = await first;
    if (message.v !== 1) {
      process.stderr.write(`crosspoint: version ${message.v} of the protocol is not known here\n`);
      process.exit(78);
    }
    this.#checkpoints = (message.features ?? []).includes("checkpoint");
    return { ...message, state: message.state?.value };
  }

  attach(cancel) {
    this.#cancel = cancel;
    if (this.#reason !== undefined) cancel(this.#reason);
  }

  hear(line) {
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      return;
    }
    const { type, seq } = message ?? {};
    if (type === "start") this.#started.resolve(message);
    if (type === "cancel") {
      this.#reason = String(message.reason ?? "cancelled");
      this.#cancel(this.#reason);
    }
    if (type === "ack") {
      for (const [waiting, { resolve }] of this.#waiting) {
        if (waiting <= seq && this.#waiting.delete(waiting)) resolve(true);
      }
    }
    if (type === "refused" && this.#waiting.has(seq)) {
      this.#waiting.get(seq).reject(new Refused(String(message.code), String(message.message)));
      this.#waiting.delete(seq);
    }
  }

  /** The supervisor says nothing any more. */
  end(why = new Error("the supervisor sent no `start`")) {
    this.#ended = true;
    this.#started.reject(why);
    for (const { reject } of this.#waiting.values()) reject(lost());
    this.#waiting.clear();
  }

  send(message) {
    this.carry(Buffer.from(`${JSON.stringify(message)}\n`));
  }

  log(level, message, fields, audience) {
    this.send({ type: "log", level, message, fields, audience });
  }

  metric(name, value, kind) {
    this.send({ type: "metric", name, value, kind });
  }

  progress(done, total, message) {
    this.send({ type: "progress", done, total, message });
  }

  keep(part, _whole, timeoutMs) {
    const seq = ++this.#seq;
    this.send({ type: "state", seq, ...part });
    if (!this.#checkpoints) return false;
    if (this.#ended) throw lost();
    return new Promise((resolve, reject) => {
      // Also keeps the process alive while it waits.
      const timer = setTimeout(() => {
        this.#waiting.delete(seq);
        reject(new Error("the state was not acknowledged in time"));
      }, Math.min(timeoutMs ?? 2 ** 31 - 1, 2 ** 31 - 1));
      const settle = (then) => (value) => {
        clearTimeout(timer);
        then(value);
      };
      this.#waiting.set(seq, { resolve: settle(resolve), reject: settle(reject) });
    });
  }

  result(value) {
    if (value !== undefined && value !== null) this.send({ type: "result", value });
  }

  failed({ code, message, retryable, afterMs }) {
    const retry_after_ms = afterMs === undefined ? undefined : Math.max(0, Math.round(afterMs));
    this.send({ type: "error", code, message, retryable, retry_after_ms });
  }
}

function lost() {
  return new Error("the supervisor is gone; whether the state was kept is not known");
}
