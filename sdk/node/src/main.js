// From the first message to the exit code.

import { Cancelled, Failed } from "./errors.js";
import { Local, Plain } from "./files.js";
import { Framed } from "./framed.js";
import { Remote } from "./remote.js";
import { Run } from "./run.js";

/** Begins the run: finds the binding, reads what there is to know. For scripts that do without `main`. */
export async function start({ prefix = "XP" } = {}) {
  return (await begin(prefix)).run;
}

async function begin(prefix) {
  const env = process.env;
  const Spoken = { framed: Framed, http: Remote }[env[`${prefix}_BINDING`]] ?? Plain;
  const protocol = env[`${prefix}_PROTOCOL`];
  if (protocol && protocol !== "crosspoint/1") {
    process.stderr.write(`crosspoint: the protocol ${protocol} is not known here\n`);
    process.exit(78);
  }
  let binding;
  if (!protocol) {
    binding = new Local(env[`${prefix}_LOCAL_DIR`] || ".crosspoint", env[`${prefix}_CTX_RUN_MODE`] || "normal");
  } else {
    binding = new Spoken(env, prefix);
  }
  const attach = binding.attach?.bind(binding);
  const facts = await binding.start();
  let run;
  binding.attach = (cancel) => {
    attach?.(cancel);
    if (binding.name === "local") return;
    process.on("SIGTERM", () => {
      const reason = run.remainingMs() <= 60_000 ? "deadline" : "draining";
      // A message that comes with the signal knows better why.
      if (Spoken !== Plain) setTimeout(cancel, 1000, reason).unref();
      else cancel(reason);
    });
  };
  run = new Run(binding, facts);
  return { run, binding };
}

/** Does the work of one run and ends the process with the exit code that says what became of it. */
export async function main(work, { init, prefix = "XP" } = {}) {
  const { run, binding } = await begin(prefix);
  const todo = run.mode === "init" ? init ?? (() => ({})) : work;
  const code = await finish(run, binding, todo);
  try {
    await binding.flush?.();
  } catch (error) {
    process.stderr.write(`crosspoint: ${error.message}\n`);
    process.exit(code || 1);
  }
  process.exit(code);
}

async function finish(run, binding, work) {
  try {
    binding.result(await work(run));
    return 0;
  } catch (error) {
    if (error instanceof Cancelled) return 143;
    if (error instanceof Failed) {
      binding.failed(error);
      return error.exitCode;
    }
    process.stderr.write(`${error?.stack ?? error}\n`);
    const name = error?.name ?? "Error";
    binding.failed({ code: name, message: String(error) });
    return 1;
  }
}
