// The framed binding: messages in on standard input, out on a descriptor or pipe of their own.

import { openSync, writeSync } from "node:fs";
import { Refused } from "./errors.js";

const SDK = "node/0.1.0";

export class Framed {
  name = "framed";
  #out;
  #source;
  #cancel = () => {};
  #earlyCancel;
  #started;
  #ended = false;
  #seq = 0;
  #waiting = new Map();
  #checkpoints = false;

  constructor(env, prefix) {
    const descriptor = env[`${prefix}_OUT_FD`];
    this.#out = descriptor ? Number(descriptor) : openSync(env[`${prefix}_OUT_PATH`], "w");
    this.#source = process.stdin;
  }

  /** Reads the first message. Ends the process where this version of the protocol is not spoken. */
  async start() {
    this.#send({ type: "hello", v: 1, sdk: SDK });
    const first = new Promise((resolve, reject) => (this.#started = { resolve, reject }));
    this.#listen();
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
    if (this.#earlyCancel !== undefined) cancel(this.#earlyCancel);
    // The run does not go on only because somebody might still say something.
    this.#source.unref?.();
  }

  #listen() {
    let rest = "";
    this.#source.setEncoding("utf8");
    this.#source.on("data", (chunk) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      for (const line of lines) this.#hear(line);
    });
    const end = () => {
      this.#ended = true;
      this.#started.reject(new Error("the supervisor sent no `start`"));
      for (const { reject } of this.#waiting.values()) reject(lost());
      this.#waiting.clear();
    };
    this.#source.on("end", end).on("error", end);
  }

  #hear(line) {
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      return;
    }
    const { type, seq } = message ?? {};
    if (type === "start") this.#started.resolve(message);
    if (type === "cancel") {
      this.#earlyCancel = String(message.reason ?? "cancelled");
      this.#cancel(this.#earlyCancel);
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

  #send(message) {
    let rest = Buffer.from(`${JSON.stringify(message)}\n`);
    while (rest.length > 0) {
      try {
        rest = rest.subarray(writeSync(this.#out, rest));
      } catch (error) {
        if (error.code !== "EAGAIN") throw error;
        // Whoever made the pipe made it non-blocking. The other side reads all the time.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
      }
    }
  }

  log(level, message, fields, audience) {
    this.#send({ type: "log", level, message, fields, audience });
  }

  metric(name, value, kind) {
    this.#send({ type: "metric", name, value, kind });
  }

  progress(done, total, message) {
    this.#send({ type: "progress", done, total, message });
  }

  keep(part, _whole, timeoutMs) {
    const seq = ++this.#seq;
    this.#send({ type: "state", seq, ...part });
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
    if (value !== undefined && value !== null) this.#send({ type: "result", value });
  }

  failed({ code, message, retryable, afterMs }) {
    const retry_after_ms = afterMs === undefined ? undefined : Math.max(0, Math.round(afterMs));
    this.#send({ type: "error", code, message, retryable, retry_after_ms });
  }
}

function lost() {
  return new Error("the supervisor is gone; whether the state was kept is not known");
}
