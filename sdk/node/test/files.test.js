import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { args } from "./supervisor.js";

class Folder {
  constructor(t) {
    this.path = mkdtempSync(join(tmpdir(), "xp-"));
    t.after(() => rmSync(this.path, { recursive: true }));
  }
  at(name) {
    return join(this.path, name);
  }
  write(name, value) {
    writeFileSync(this.at(name), JSON.stringify(value));
    return this.at(name);
  }
  read(name) {
    return JSON.parse(readFileSync(this.at(name), "utf8"));
  }
  options(env = {}) {
    return { cwd: this.path, env: { PATH: process.env.PATH, ...env }, encoding: "utf8" };
  }
  run(text, env) {
    return spawnSync(process.execPath, args(text), this.options(env));
  }
  plain() {
    mkdirSync(this.at("secrets"));
    writeFileSync(this.at("secrets/token"), "t");
    return {
      XP_PROTOCOL: "crosspoint/1",
      XP_CONFIG_FILE: this.write("config.json", { size: 5 }),
      XP_INPUT_FILE: this.write("input.json", { n: 1 }),
      XP_STATE_FILE: this.write("state.json", { page: 1 }),
      XP_TRIGGERS_FILE: this.write("triggers.json", [{ data: { n: 1 } }]),
      XP_STATE_OUT: this.at("state-out.json"),
      XP_RESULT_FILE: this.at("result.json"),
      XP_SECRETS_DIR: this.at("secrets"),
      XP_RUN_KEY: "0192a000-0000-7000-8000-000000000002",
      XP_DEADLINE: "2100-01-01T00:00:00Z",
      XP_CTX_ATTEMPT: "2",
      XP_CTX_FLOW: "go",
      XP_CTX_RUN_MODE: "normal",
    };
  }
}

test("a run reads and leaves files", (t) => {
  const folder = new Folder(t);
  const text = `
    await xp.main(async (run) => {
      run.info("hello", { n: 1 });
      run.warn("careful");
      run.metric("orders", 3);
      run.progress(1, 2, "half");
      const kept = await run.patch({ page: 2 });
      return [run.config, run.input, run.secrets, run.attempt, run.flow, kept, run.binding];
    });`;
  const done = folder.run(text, folder.plain());
  assert.equal(done.status, 0, done.stderr);
  assert.deepEqual(folder.read("result.json"), [{ size: 5 }, { n: 1 }, { token: "t" }, 2, "go", false, "plain"]);
  assert.deepEqual(folder.read("state-out.json"), { page: 2 });
  const lines = ['hello {"n":1}', "WARN: careful", "Metric orders: 3 (counter)", "Progress: 1 of 2: half", ""];
  assert.deepEqual(done.stderr.split("\n"), lines);
});

test("exit codes", (t) => {
  const folder = new Folder(t);
  const env = folder.plain();
  for (const [text, code] of [["xp.Later('x')", 75], ["xp.CredentialsRefused('x')", 77], ["Error('x')", 1]]) {
    assert.equal(folder.run(`await xp.main(() => { throw new ${text}; });`, env).status, code, text);
    assert.ok(!existsSync(folder.at("result.json")));
  }
});

test("another protocol is refused", (t) => {
  const done = new Folder(t).run("await xp.main(() => 1);", { XP_PROTOCOL: "crosspoint/2", XP_BINDING: "framed" });
  assert.equal(done.status, 78, done.stderr);
});

test("a signal is a wish to stop", async (t) => {
  const folder = new Folder(t);
  const text = `
    await xp.main(async (run) => {
      const alive = setInterval(() => {}, 1000);
      const stopped = new Promise((resolve) => run.onCancel(resolve));
      console.log("ready");
      const reason = await stopped;
      await run.patch({ page: 9 });
      clearInterval(alive);
      return reason;
    });`;
  const child = spawn(process.execPath, args(text), folder.options(folder.plain()));
  child.stdout.once("data", () => child.kill("SIGTERM"));
  const code = await new Promise((resolve) => child.on("close", resolve));
  assert.equal(code, 0);
  assert.deepEqual([folder.read("result.json"), folder.read("state-out.json")], ["draining", { page: 9 }]);
});

test("a folder stands in for the supervisor", (t) => {
  const folder = new Folder(t);
  const text = `
    await xp.main(async (run) => {
      await run.checkpoint({ runs: (run.state?.runs ?? 0) + 1 });
      return [run.config, run.input, run.state, run.binding, run.mode];
    }, { init: () => "choices" });`;
  const first = folder.run(text);
  assert.equal(first.status, 0, first.stderr);
  assert.deepEqual(JSON.parse(first.stdout), [{}, null, { runs: 1 }, "local", "normal"]);
  folder.write(".crosspoint/config.json", { a: 1 });
  folder.write(".crosspoint/input.json", [2]);
  assert.deepEqual(JSON.parse(folder.run(text).stdout), [{ a: 1 }, [2], { runs: 2 }, "local", "normal"]);
  assert.equal(JSON.parse(folder.run(text, { XP_CTX_RUN_MODE: "init" }).stdout), "choices");
});
