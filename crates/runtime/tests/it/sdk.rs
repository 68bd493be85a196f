//! The SDKs of `sdk/`, run by the supervisor over every binding and at every level.

use crate::{
    machine::{self, has},
    scripts::{demo, install},
    world::{CANARY, World},
};
use crosspoint_core::{Audience, ExecutionStatus, Isolation, Protocol, Script};
use serde_json::{Value, json};

const PYTHON: &str = r#"
import crosspoint_sdk as xp

def work(run):
    print("a print is a line of log")
    runs = (run.state or {}).get("runs", 0) + 1
    durable = run.checkpoint({"runs": runs})
    if run.input == "fail":
        raise xp.Never("it is of no use, " + run.secrets["token"])
    run.info("counted", runs=runs)
    run.tell("Counted to %d" % runs)
    return {"binding": run.binding, "durable": durable, "size": run.config["size"], "input": run.input}

xp.main(work)
"#;

const NODE: &str = r#"
const { main, Never } = await import(`file://${process.cwd()}/src/index.js`);
await main(async (run) => {
  console.log("a print is a line of log");
  const runs = (run.state?.runs ?? 0) + 1;
  const durable = await run.checkpoint({ runs });
  if (run.input === "fail") throw new Never(`it is of no use, ${run.secrets.token}`);
  run.info("counted", { runs });
  run.tell(`Counted to ${runs}`);
  return { binding: run.binding, durable, size: run.config.size, input: run.input };
});
"#;

fn sdk(path: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk");
    root.canonicalize().unwrap().join(path).display().to_string()
}

/// Runs a script that counts its successes, over every binding.
async fn counts(script: Script) {
    let process = [Protocol::Plain, Protocol::Framed, Protocol::Http].map(|p| (Isolation::Process, p));
    let levels = machine::levels(Isolation::Confined).await.into_iter();
    let above = levels.flat_map(|level| [(level, Protocol::Plain), (level, Protocol::Framed)]);
    for (level, protocol) in process.into_iter().chain(above) {
        Box::pin(count(script.clone().isolation(level), protocol)).await;
    }
}

async fn count(script: Script, protocol: Protocol) {
    let (level, framed) = (script.required_isolation(), protocol != Protocol::Plain);
    let world = World::new([demo(script.needs_secrets().protocol(protocol))]);
    let installation = install(&world, json!({ "size": 5 })).await;
    let (done, reply) = world.run(&installation, "go", json!(7)).await;
    let lines = world.log(done.id, Audience::Developer).await;
    assert_eq!(
        (done.status, done.isolation),
        (ExecutionStatus::Succeeded, Some(level)),
        "{protocol:?}: {lines:?}"
    );
    let binding = serde_json::to_value(protocol).unwrap();
    assert_eq!(
        reply,
        json!({ "binding": binding, "durable": framed, "size": 5, "input": 7 })
    );
    assert_eq!(world.state(&installation, "go").await, json!({ "runs": 1 }));
    assert!(lines.contains(&"a print is a line of log".to_owned()), "{lines:?}");
    let told = world.log(done.id, Audience::Customer).await;
    assert_eq!(told.contains(&"Counted to 1".to_owned()), framed, "{told:?}");

    let (failed, _) = world.run(&installation, "go", json!("fail")).await;
    let lines = world.log(failed.id, Audience::Developer).await;
    assert_eq!(
        failed.status,
        ExecutionStatus::Failed,
        "{level}, {protocol:?}: {lines:?}"
    );
    let runs = if framed { 2 } else { 1 };
    let kept = world.state(&installation, "go").await;
    assert_eq!(kept, json!({ "runs": runs }), "kept on the way, or not at all");
    let message = failed.failure.unwrap().message;
    let said = if framed {
        "it is of no use, [secret]"
    } else {
        "the script refused its input (exit code 65)"
    };
    assert_eq!(message, said);
    assert!(!format!("{lines:?}").contains(CANARY));
    let (again, _) = world.run(&installation, "go", Value::Null).await;
    assert_eq!(again.status, ExecutionStatus::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    if has(machine::PYTHON) {
        let script = Script::command(machine::PYTHON, ["-c", PYTHON]).dir(sdk("python"));
        Box::pin(counts(script)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node() {
    if has("node") {
        let script = Script::command("node", ["--input-type=module", "-e", NODE]).dir(sdk("node"));
        Box::pin(counts(script)).await;
    }
}

const PYTHON_CALLS: &str = r#"
import crosspoint_sdk as xp

def work(run):
    made = run.connection("shop").post("/orders", json={"n": 1}, effect="order-1")
    lost = run.connection("nowhere").request("GET", "/x")
    return [made.status, made.json(), lost.refused_by]

xp.main(work)
"#;

const NODE_CALLS: &str = r#"
const { main } = await import(`file://${process.cwd()}/src/index.js`);
await main(async (run) => {
  const made = await run.connection("shop").post("/orders", { json: { n: 1 }, effect: "order-1" });
  const lost = await run.connection("nowhere").request("GET", "/x");
  return [made.status, made.json(), lost.refusedBy];
});
"#;

/// At `confined` the broker is at a socket, at `sandboxed` at a port; the provider of the tests echoes what it gets.
async fn calls(script: Script) {
    for level in machine::levels(Isolation::Confined).await {
        for protocol in [Protocol::Plain, Protocol::Framed] {
            let script = script.clone().isolation(level).protocol(protocol);
            let world = World::new([demo(script)]);
            let installation = install(&world, json!({})).await;
            let (done, reply) = world.run(&installation, "go", json!(7)).await;
            let lines = world.log(done.id, Audience::Developer).await;
            assert_eq!(
                done.status,
                ExecutionStatus::Succeeded,
                "{level}, {protocol:?}: {lines:?}"
            );
            assert_eq!(reply, json!([200, { "n": 1 }, "not-found"]), "{level}, {protocol:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_reaches_its_connections() {
    if has(machine::PYTHON) {
        let script = Script::command(machine::PYTHON, ["-c", PYTHON_CALLS]).dir(sdk("python"));
        Box::pin(calls(script)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_reaches_its_connections() {
    if has("node") {
        let script = Script::command("node", ["--input-type=module", "-e", NODE_CALLS]).dir(sdk("node"));
        Box::pin(calls(script)).await;
    }
}
