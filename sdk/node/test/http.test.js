import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import * as xp from "../src/index.js";
import { overBroker } from "../src/http.js";

// Answers with what it got, or with the status that the path asks for.
const broker = createServer(respond);
async function respond(request, response) {
  let body = "";
  for await (const chunk of request) body += chunk;
  const part = request.url.split("?")[0].split("/").at(-1);
  const problem = part === "problem";
  const status = problem ? 429 : Number(part) || 200;
  if (problem) response.setHeader("xp-error", "rate-limited");
  if (problem || status === 503) response.setHeader("retry-after", "7");
  if (status === 302) response.setHeader("location", "/elsewhere");
  response.writeHead(status);
  response.end(JSON.stringify({ method: request.method, path: request.url, body, headers: request.headers, retry: "later" }));
}
let shop;
before(async () => {
  await new Promise((resolve) => broker.listen(0, "127.0.0.1", resolve));
  shop = overBroker(`http://127.0.0.1:${broker.address().port}`, "my shop");
});
after(() => {
  broker.closeAllConnections?.();
  broker.close();
});

test("a request goes to the broker under the connection", async () => {
  const options = { query: { a: "x y", b: [1, 2] }, json: { n: 1 }, effect: "order-1" };
  const got = (await shop.post("orders", options)).json();
  assert.equal(got.path, "/c/my%20shop/orders?a=x+y&b=1&b=2");
  assert.deepEqual([got.method, JSON.parse(got.body)], ["POST", { n: 1 }]);
  assert.deepEqual([got.headers["xp-effect-key"], got.headers["content-type"]], ["order-1", "application/json"]);
});

test("every status is an answer, and check says what it means", async () => {
  const cases = [[401, xp.CredentialsRefused], [403, xp.Never], [404, xp.Never], [429, xp.Later], [503, xp.Later]];
  for (const [status, meaning] of cases) {
    const answer = await shop.request("GET", `/${status}`);
    assert.deepEqual([answer.status, answer.ok], [status, false]);
    assert.throws(
      () => answer.check(),
      (error) => error instanceof meaning && error.afterMs === (status === 503 ? 7000 : undefined),
    );
  }
  const redirect = await shop.get("/302");
  assert.deepEqual([redirect.status, redirect.headers.get("location")], [302, "/elsewhere"]);
});

test("the broker's own problems are told apart", async () => {
  const answer = await shop.request("GET", "/problem");
  assert.equal(answer.refusedBy, "rate-limited");
  const expected = (error) => error instanceof xp.Later && error.code === "rate-limited" && error.afterMs === 7000;
  assert.throws(() => answer.check(), expected);
});

test("the broker may be at a socket", async () => {
  const folder = mkdtempSync(join(tmpdir(), "xp-"));
  const socket = join(folder, "network");
  const server = createServer(respond);
  await new Promise((resolve) => server.listen(socket, resolve));
  const shop = overBroker("http://localhost", "shop", socket);
  const got = (await shop.post("/orders?x=1", { json: { n: 1 } })).json();
  assert.deepEqual([got.path, got.body, got.method], ["/c/shop/orders?x=1", '{"n":1}', "POST"]);
  assert.equal((await shop.request("GET", "/503")).headers.get("retry-after"), "7");
  server.closeAllConnections?.();
  server.close();
  rmSync(folder, { recursive: true });
});

test("what cannot be reached is for later", async () => {
  await assert.rejects(overBroker("http://127.0.0.1:1", "x").get("/"), { name: "Later", code: "unreachable" });
  assert.throws(() => overBroker(undefined, "x"), { code: "no-broker" });
});

test("an effect has one key in every attempt", () => {
  const facts = { run_key: "0192a000-0000-7000-8000-000000000002" };
  const keys = [1, 2].map((attempt) => new xp.Run({ name: "none" }, { ...facts, attempt }).effectKey("a"));
  assert.equal(keys[0], keys[1]);
  assert.match(keys[0], /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.notEqual(new xp.Run({ name: "none" }, facts).effectKey("b"), keys[0]);
});
