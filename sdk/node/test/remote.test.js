import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { test } from "node:test";
import { START, args } from "./supervisor.js";

/** The supervisor's side. With `lossy`, the first answer to each batch of the guest gets lost. */
async function desk(t, lossy = false) {
  const said = { lines: undefined, sent: 0, queue: [] };
  const heard = { taken: 0, lost: 0, messages: [], looks: [] };
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    if (request.headers.authorization !== "Bearer t") return response.writeHead(401).end();
    if (request.method === "GET") {
      const after = Number(new URL(request.url, "http://x").searchParams.get("after"));
      if (after === said.sent) {
        if (said.queue.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
        if (said.queue.length === 0) return response.writeHead(204).end();
        said.lines = said.queue.shift();
        said.sent += 1;
      }
      return response.writeHead(200, { "xp-batch": said.sent }).end(said.lines);
    }
    const number = Number(request.headers["xp-batch"]);
    if (number > heard.taken) {
      heard.taken = number;
      heard.messages.push(...body.trim().split("\n").map((line) => JSON.parse(line)));
      for (const look of heard.looks.splice(0)) look();
    }
    if (lossy && heard.lost !== number) {
      heard.lost = number;
      return request.socket.destroy();
    }
    response.writeHead(204).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections?.();
    server.close();
  });
  return {
    say: (...messages) => said.queue.push(messages.map((message) => `${JSON.stringify(message)}\n`).join("")),
    messages: heard.messages,
    async hear(type, nth = 0) {
      for (;;) {
        const found = heard.messages.filter((message) => message.type === type)[nth];
        if (found) return found;
        await new Promise((resolve) => heard.looks.push(resolve));
      }
    },
    run(text, token = "t") {
      const url = `http://127.0.0.1:${server.address().port}/v1`;
      const env = { PATH: process.env.PATH, XP_PROTOCOL: "crosspoint/1", XP_BINDING: "http" };
      const child = spawn(process.execPath, args(text), { env: { ...env, XP_HTTP_URL: url, XP_HTTP_TOKEN: token } });
      let output = "";
      child.stderr.on("data", (chunk) => (output += chunk));
      return new Promise((resolve) => child.on("close", (code) => resolve({ code, output })));
    },
  };
}

for (const lossy of [false, true]) {
  test(lossy ? "lost answers do no harm" : "a checkpoint and a result", async (t) => {
    const host = await desk(t, lossy);
    host.say({ ...START, secrets: { a: "b" } });
    const ended = host.run(`
      await xp.main(async (run) => [await run.patch({ page: 2 }), await run.patch({ page: 3 }), run.binding, run.secrets]);`);
    assert.equal((await host.hear("hello")).v, 1);
    await host.hear("state");
    host.say({ type: "ack", seq: 1, version: 4 });
    assert.deepEqual((await host.hear("state", 1)).patch, { page: 3 });
    host.say({ type: "unknown" }, { type: "ack", seq: 2, version: 5 });
    assert.deepEqual((await host.hear("result")).value, [true, true, "http", { a: "b" }]);
    assert.equal((await ended).code, 0);
    assert.equal(host.messages.length, 4, "nothing was taken twice");
  });
}

test("a wish to stop", async (t) => {
  const host = await desk(t);
  host.say(START);
  const ended = host.run(`
    await xp.main(async (run) => {
      const stopped = new Promise((resolve) => run.onCancel(resolve));
      run.info("ready");
      return await stopped;
    });`);
  await host.hear("log");
  host.say({ type: "cancel", reason: "deadline", grace_ms: 1000 });
  assert.equal((await host.hear("result")).value, "deadline");
  assert.equal((await ended).code, 0);
});

test("a wrong token", async (t) => {
  const host = await desk(t);
  host.say(START);
  const { code, output } = await host.run("await xp.main(() => 1);", "guess");
  assert.notEqual(code, 0);
  assert.match(output, /401/);
});
