import assert from "node:assert/strict";
import { test } from "node:test";
import { Framed } from "./supervisor.js";

test("a run knows what it is about and answers", async () => {
  const work = `
    await xp.main((run) => {
      console.log("a print is a line of log");
      run.info("hello", { orders: 3 });
      run.tell("Exported 3 orders");
      run.metric("orders", 3);
      run.progress(1, 2, "half");
      return [run.config, run.input, run.state, run.attempt, run.customer, run.mode, run.runKey, run.binding,
        run.deadline.getUTCFullYear(), run.secrets];
    });`;
  const { code, messages, output } = await new Framed(work, { secrets: { token: "t" } }).end();
  assert.equal(code, 0, output);
  const kinds = messages.map((message) => message.type);
  assert.deepEqual(kinds, ["hello", "log", "log", "metric", "progress", "result"]);
  assert.deepEqual(messages[1].fields, { orders: 3 });
  assert.deepEqual([messages[1].audience, messages[2].audience], ["developer", "customer"]);
  const key = "0192a000-0000-7000-8000-000000000002";
  const expected = [{ size: 5 }, { n: 1 }, { page: 1 }, 2, "acme", "normal", key, "framed", 2100, { token: "t" }];
  assert.deepEqual(messages[5].value, expected);
  assert.equal(output, "a print is a line of log\n");
});

test("messages also go to a pipe with a name", async () => {
  const guest = new Framed("await xp.main(() => 1);", {}, { byPath: true });
  assert.equal((await guest.read("result")).value, 1);
  assert.equal((await guest.end()).code, 0);
});

test("a checkpoint waits for its acknowledgement", async () => {
  const guest = new Framed(`
    await xp.main(async (run) => [await run.patch({ page: 2 }), await run.checkpoint({ page: 3 }), run.state]);`);
  assert.deepEqual(await guest.read("state"), { type: "state", seq: 1, patch: { page: 2 } });
  guest.say({ type: "something new", seq: 1 });
  guest.say({ type: "ack", seq: 1, version: 4 });
  assert.deepEqual(await guest.read("state", 1), { type: "state", seq: 2, value: { page: 3 } });
  guest.say({ type: "ack", seq: 2, version: 5 });
  const { code, messages } = await guest.end();
  assert.deepEqual([code, messages.at(-1).value], [0, [true, true, { page: 3 }]]);
});

test("an acknowledgement covers the states before it", async () => {
  const guest = new Framed("await xp.main((run) => Promise.all([run.checkpoint(1), run.checkpoint(2)]));");
  await guest.read("state", 1);
  guest.say({ type: "ack", seq: 2, version: 5 });
  assert.deepEqual((await guest.read("result")).value, [true, true]);
  await guest.end();
});

test("a refused state throws", async () => {
  const guest = new Framed("await xp.main((run) => run.checkpoint('x').catch((error) => error.code));");
  await guest.read("state");
  guest.say({ type: "refused", seq: 1, code: "too-large", message: "no" });
  const { code, messages } = await guest.end();
  assert.deepEqual([code, messages.at(-1).value], [0, "too-large"]);
});

test("without checkpoints nothing is waited for", async () => {
  const { code, messages } = await new Framed("await xp.main((run) => run.checkpoint(1));", { features: [] }).end();
  assert.deepEqual([code, messages.at(-1).value], [0, false]);
});

test("a lost supervisor is noticed", async () => {
  const guest = new Framed("await xp.main((run) => run.checkpoint(1));");
  await guest.read("state");
  guest.process.stdin.end();
  const { code, messages } = await guest.end();
  assert.equal(code, 1);
  assert.match(messages.at(-1).message, /supervisor is gone/);
});

test("a run that is told to stop saves and ends", async () => {
  const guest = new Framed(`
    await xp.main(async (run) => {
      const stopped = new Promise((resolve) => run.onCancel(resolve));
      const alive = setInterval(() => {}, 1000);
      run.info("ready");
      run.info(await stopped);
      clearInterval(alive);
      run.check();
    });`);
  await guest.read("log");
  guest.say({ type: "cancel", reason: "draining", grace_ms: 10000 });
  guest.process.kill("SIGTERM");
  const { code, messages } = await guest.end();
  assert.deepEqual([code, messages.at(-1).message], [143, "draining"]);
});

test("failures say whether another attempt is worth it", async () => {
  const cases = [
    ["xp.Later('busy', { afterMs: 1500 })", 75, { code: "later", message: "busy", retryable: true, retry_after_ms: 1500 }],
    ["xp.Never('no')", 65, { code: "never", message: "no", retryable: false }],
    ["xp.InputInvalid('no')", 65, { code: "input-invalid", message: "no", retryable: false }],
    ["xp.ConfigInvalid('no')", 78, { code: "config-invalid", message: "no", retryable: false }],
    ["xp.CredentialsRefused('no')", 77, { code: "credentials-refused", message: "no", retryable: false }],
    ["xp.Failed('no', { code: 'mine' })", 1, { code: "mine", message: "no" }],
    ["TypeError('no')", 1, { code: "TypeError", message: "TypeError: no" }],
  ];
  for (const [text, exitCode, expected] of cases) {
    const { code, messages } = await new Framed(`await xp.main(() => { throw new ${text}; });`).end();
    assert.deepEqual([code, messages.at(-1)], [exitCode, { type: "error", ...expected }], text);
  }
});

test("another version is refused", async () => {
  const { code, messages } = await new Framed("await xp.main(() => 1);", { v: 2 }).end();
  assert.deepEqual([code, messages.length], [78, 1]);
});

test("the mode init answers choices", async () => {
  const choices = { list: [{ value: "a", label: "A" }] };
  const text = `await xp.main(() => 1, { init: async () => (${JSON.stringify(choices)}) });`;
  assert.deepEqual((await new Framed(text, { mode: "init" }).end()).messages.at(-1).value, choices);
  const without = await new Framed("await xp.main(() => 1);", { mode: "init" }).end();
  assert.deepEqual(without.messages.at(-1).value, {});
});

test("a long message arrives whole", async () => {
  const { code, messages } = await new Framed("await xp.main(() => 'x'.repeat(3000000));").end();
  assert.deepEqual([code, messages.at(-1).value.length], [0, 3000000]);
});
