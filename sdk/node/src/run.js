// One run, whatever binding it speaks.

import { createHash, randomUUID } from "node:crypto";
import { Cancelled } from "./errors.js";
import { Connection, overBroker } from "./http.js";

export class Run {
  #binding;
  #broker;
  #socket;
  #connections;
  #callbacks = [];
  #reason;

  constructor(binding, facts) {
    this.#binding = binding;
    this.binding = binding.name;
    this.mode = facts.mode || "normal";
    this.config = facts.config ?? {};
    this.triggers = facts.triggers ?? [];
    this.input = "input" in facts ? facts.input : this.triggers[0]?.data ?? null;
    this.secrets = { ...facts.secrets };
    this.state = facts.state ?? null;
    this.runKey = facts.run_key || randomUUID();
    this.execution = facts.execution || this.runKey;
    this.attempt = Number(facts.attempt) || 1;
    this.customer = facts.customer;
    this.installation = facts.installation;
    this.integration = facts.integration;
    this.flow = facts.flow;
    this.trigger = facts.trigger || "call";
    this.deadline = facts.deadline ? new Date(facts.deadline) : undefined;
    this.#broker = facts.broker;
    this.#socket = facts.network_socket ?? undefined;
    this.#connections = facts.connections ?? {};
    binding.attach?.((reason) => this.#cancel(reason));
  }

  /** Writes a line for the integration's author, or with `customer` for the customer's people. */
  log(level, message, fields = {}, { customer = false } = {}) {
    this.#binding.log(level, String(message), fields, customer ? "customer" : "developer");
  }
  debug(message, fields) {
    this.log("debug", message, fields);
  }
  info(message, fields) {
    this.log("info", message, fields);
  }
  warn(message, fields) {
    this.log("warn", message, fields);
  }
  error(message, fields) {
    this.log("error", message, fields);
  }

  /** A sentence for the customer's people. */
  tell(message) {
    this.log("info", message, {}, { customer: true });
  }

  /** Counts something (`counter`: values are added up) or notes how much there is (`gauge`: the last counts). */
  metric(name, value = 1, kind = "counter") {
    this.#binding.metric(name, value, kind);
  }

  /** Says how far the work has come. */
  progress(done, total, message) {
    this.#binding.progress(done, total, message);
  }

  /** Remembers a new state whole. Resolves with whether it is durable now, or will be with the run's success. */
  async checkpoint(value, options = {}) {
    this.state = value;
    return this.#binding.keep({ value }, value, options.timeoutMs);
  }

  /** Remembers new values of some fields of the state. */
  async patch(fields, options = {}) {
    const old = this.state !== null && typeof this.state === "object" && !Array.isArray(this.state) ? this.state : {};
    this.state = { ...old, ...fields };
    return this.#binding.keep({ patch: fields }, this.state, options.timeoutMs);
  }

  /** Whether the run was told to stop. It is killed when its grace is over. */
  get cancelled() {
    return this.#reason !== undefined;
  }

  get cancelReason() {
    return this.#reason;
  }

  /** Throws `Cancelled` if the run was told to stop. */
  check() {
    if (this.cancelled) throw new Cancelled(this.#reason);
  }

  /** Calls back with the reason when the run is told to stop; at once if it has been. */
  onCancel(callback) {
    if (this.cancelled) callback(this.#reason);
    else this.#callbacks.push(callback);
  }

  #cancel(reason) {
    if (this.cancelled) return;
    this.#reason = reason;
    for (const callback of this.#callbacks.splice(0)) callback(reason);
  }

  /** Milliseconds until the run is killed; infinite if nobody does. */
  remainingMs() {
    return this.deadline === undefined ? Infinity : this.deadline.getTime() - Date.now();
  }

  /** One of the integration's connections, by its name. */
  connection(slot) {
    const local = this.#connections[slot];
    return local ? new Connection(local.base_url, local.headers) : overBroker(this.#broker, slot, this.#socket);
  }

  /** A UUID for an effect of this run, the same in every attempt: an idempotency key for providers. */
  effectKey(name) {
    const space = Buffer.from(this.runKey.replaceAll("-", ""), "hex");
    const hash = createHash("sha1").update(space).update(name, "utf8").digest().subarray(0, 16);
    hash[6] = (hash[6] & 0x0f) | 0x50;
    hash[8] = (hash[8] & 0x3f) | 0x80;
    return hash.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }
}
