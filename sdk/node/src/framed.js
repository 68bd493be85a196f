// The framed binding: messages in on standard input, out on a descriptor or pipe of their own.

import { openSync, writeSync } from "node:fs";
import { Messages } from "./messages.js";

export class Framed extends Messages {
  name = "framed";
  #out;

  constructor(env, prefix) {
    super();
    const descriptor = env[`${prefix}_OUT_FD`];
    this.#out = descriptor ? Number(descriptor) : openSync(env[`${prefix}_OUT_PATH`], "w");
  }

  attach(cancel) {
    super.attach(cancel);
    // The run does not go on only because somebody might still say something.
    process.stdin.unref?.();
  }

  listen() {
    let rest = "";
    process.stdin.setEncoding("utf8");
    process.stdin.on("data", (chunk) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      for (const line of lines) this.hear(line);
    });
    process.stdin.on("end", () => this.end()).on("error", () => this.end());
  }

  carry(line) {
    let rest = line;
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
}
