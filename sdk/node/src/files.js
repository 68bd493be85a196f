// The plain binding (variables and files), and the same without a supervisor: a folder on the author's own machine.

import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Logs are lines on standard error; the state is kept with the success of the run. */
class Files {
  constructor(statePath) {
    this.statePath = statePath;
  }

  log(level, message, fields) {
    const text = level === "info" ? message : `${level.toUpperCase()}: ${message}`;
    line(Object.keys(fields ?? {}).length > 0 ? `${text} ${JSON.stringify(fields)}` : text);
  }

  metric(name, value, kind) {
    line(`Metric ${name}: ${value} (${kind})`);
  }

  progress(done, total, message) {
    let text = "Progress";
    if (done !== undefined) text += `: ${done}${total === undefined ? "" : ` of ${total}`}`;
    line(message ? `${text}: ${message}` : text);
  }

  keep(_part, whole) {
    write(this.statePath, whole);
    return false;
  }

  failed({ code, message }) {
    line(`${message} (${code})`);
  }
}

export class Plain extends Files {
  name = "plain";
  #get;

  constructor(env, prefix) {
    super(env[`${prefix}_STATE_OUT`]);
    this.#get = (name) => env[`${prefix}_${name}`];
  }

  start() {
    const get = this.#get;
    const facts = { run_key: get("RUN_KEY"), deadline: get("DEADLINE"), broker: get("BROKER_URL") };
    facts.network_socket = get("NETWORK_SOCKET");
    for (const name of ["execution", "attempt", "customer", "installation", "integration", "flow", "trigger"]) {
      facts[name] = get(`CTX_${name.toUpperCase()}`);
    }
    facts.mode = get("CTX_RUN_MODE");
    for (const name of ["config", "input", "triggers", "state"]) facts[name] = read(get(`${name.toUpperCase()}_FILE`));
    const folder = get("SECRETS_DIR");
    if (folder) {
      facts.secrets = {};
      for (const name of readdirSync(folder)) facts.secrets[name] = readFileSync(join(folder, name), "utf8");
    }
    return facts;
  }

  result(value) {
    if (value !== undefined && value !== null) write(this.#get("RESULT_FILE"), value);
  }
}

/**
 * Reads `config.json`, `input.json`, `state.json`, `secrets.json` and `connections.json` from a folder, each of which
 * may be missing; writes `state.json`; prints the result. `connections.json` gives each connection a `base_url` and, if
 * it needs them, `headers`.
 */
export class Local extends Files {
  name = "local";
  #folder;
  #mode;

  constructor(folder, mode) {
    super(join(folder, "state.json"));
    this.#folder = folder;
    this.#mode = mode;
  }

  start() {
    const facts = { mode: this.#mode };
    for (const name of ["config", "input", "state", "secrets", "connections"]) {
      facts[name] = read(join(this.#folder, `${name}.json`));
    }
    facts.triggers = [{ type: "crosspoint.call", data: facts.input }];
    return facts;
  }

  keep(part, whole) {
    mkdirSync(this.#folder, { recursive: true });
    return super.keep(part, whole);
  }

  result(value) {
    process.stdout.write(`${JSON.stringify(value ?? null, null, 2)}\n`);
  }
}

function line(text) {
  process.stderr.write(`${text}\n`);
}

function read(path) {
  if (path === undefined) return null;
  let text;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return null;
    throw error;
  }
  return text.trim() === "" ? null : JSON.parse(text);
}

/** Whole or not at all, also if the script is killed in between. */
function write(path, value) {
  writeFileSync(`${path}.new`, JSON.stringify(value));
  renameSync(`${path}.new`, path);
}
