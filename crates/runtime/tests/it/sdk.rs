//! The SDKs of `sdk/`, run by the supervisor over every binding.

use crate::{
    scripts::{demo, has, install},
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
const { main, Never } = await import(process.env.SDK);
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
    for (protocol, binding) in [
        (Protocol::Plain, "plain"),
        (Protocol::Framed, "framed"),
        (Protocol::Http, "http"),
    ] {
        let script = script
            .clone()
            .needs_secrets()
            .isolation(Isolation::Process)
            .protocol(protocol);
        let world = World::new([demo(script)]);
        let installation = install(&world, json!({ "size": 5 })).await;
        let (done, reply) = world.run(&installation, "go", json!(7)).await;
        let lines = world.log(done.id, Audience::Developer).await;
        assert_eq!(done.status, ExecutionStatus::Succeeded, "{lines:?}");
        let framed = protocol != Protocol::Plain;
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
        assert_eq!(failed.status, ExecutionStatus::Failed, "{lines:?}");
        let runs = if framed { 2 } else { 1 };
        assert_eq!(
            world.state(&installation, "go").await,
            json!({ "runs": runs }),
            "kept on the way, or not at all"
        );
        let message = failed.failure.unwrap().message;
        let said = if framed {
            "it is of no use, [secret]"
        } else {
            "the script refused its input (exit code 65)"
        };
        assert_eq!(message, said);
        assert!(!format!("{lines:?}").contains(CANARY));
        assert_eq!(
            world.run(&installation, "go", Value::Null).await.0.status,
            ExecutionStatus::Succeeded
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    if has("python3") {
        let script = Script::inline("python3", PYTHON).env("PYTHONPATH", sdk("python"));
        Box::pin(counts(script)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node() {
    if has("node") {
        let script = Script::command("node", ["--input-type=module", "-e", NODE]);
        let script = script.env("SDK", format!("file://{}", sdk("node/src/index.js")));
        Box::pin(counts(script)).await;
    }
}
