// The other side of the protocol, small: starts a script and talks to it.

import { execFileSync, spawn } from "node:child_process";
import { constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const SDK = new URL("../src/index.js", import.meta.url).href;

export const START = {
  type: "start",
  v: 1,
  mode: "normal",
  execution: "0192a000-0000-7000-8000-000000000001",
  run_key: "0192a000-0000-7000-8000-000000000002",
  attempt: 2,
  deadline: "2100-01-01T00:00:00.123456789Z",
  customer: "acme",
  flow: "go",
  trigger: "call",
  triggers: [{ specversion: "1.0", type: "crosspoint.call", data: { n: 1 } }],
  config: { size: 5 },
  state: { version: 3, value: { page: 1 } },
  features: ["checkpoint"],
};

export function args(text) {
  return ["--input-type=module", "-e", `import * as xp from ${JSON.stringify(SDK)};\n${text}`];
}

/** A script over the framed binding. */
export class Framed {
  constructor(text, start = {}, { byPath = false } = {}) {
    const env = { PATH: process.env.PATH, XP_PROTOCOL: "crosspoint/1", XP_BINDING: "framed" };
    const stdio = ["pipe", "pipe", "pipe", "pipe"];
    if (byPath) {
      this.folder = mkdtempSync(join(tmpdir(), "xp-"));
      env.XP_OUT_PATH = join(this.folder, "messages");
      execFileSync("mkfifo", [env.XP_OUT_PATH]);
      stdio.pop();
    } else {
      env.XP_OUT_FD = "3";
    }
    // A pipe with a name can be opened for reading and writing, so that neither side waits for the other.
    const fd = byPath ? openSync(env.XP_OUT_PATH, constants.O_RDWR | constants.O_NONBLOCK) : undefined;
    this.process = spawn(process.execPath, args(text), { env, stdio });
    this.exited = new Promise((resolve) => this.process.on("close", (code, signal) => resolve(code ?? signal)));
    this.output = "";
    for (const pipe of [this.process.stdout, this.process.stderr]) pipe.on("data", (chunk) => (this.output += chunk));
    this.process.stdin.on("error", () => {});
    this.messages = [];
    this.waiting = [];
    const out = byPath ? new Socket({ fd, readable: true, writable: false }) : this.process.stdio[3];
    out.on("error", () => {});
    this.out = out;
    this.drained = new Promise((resolve) => out.on("close", resolve));
    createInterface({ input: out }).on("line", (line) => {
      this.messages.push(JSON.parse(line));
      for (const look of this.waiting.splice(0)) look();
    });
    this.say({ ...START, ...start });
  }

  say(message) {
    this.process.stdin.write(`${JSON.stringify(message)}\n`);
  }

  /** The first message of this kind, or the one numbered `nth`. */
  async read(type, nth = 0) {
    for (;;) {
      const found = this.messages.filter((message) => message.type === type)[nth];
      if (found) return found;
      await new Promise((resolve) => this.waiting.push(resolve));
    }
  }

  async end() {
    const code = await this.exited;
    if (this.folder) {
      this.out.destroy();
      rmSync(this.folder, { recursive: true });
    } else {
      await this.drained;
    }
    return { code, messages: this.messages, output: this.output };
  }
}
