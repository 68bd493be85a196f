//! Scripts that are asked what the fields of a configuration can be.

use crate::{
    framed::framed,
    scripts::{demo, install, limits, sh},
    world::{ACME, CANARY, World, scope},
};
use async_trait::async_trait;
use crosspoint_core::{
    Choice, Code, ConnectionId, Control, ExposeSecret, Flow, FlowContext, FlowOptions, Installation, Integration,
    Isolation, IsolationReport, NoConfig, Result, RunEnd, RunHandle, RunMode, RunOutcome, RunSpec, Runner, Script,
    StopReason, Trigger, Work,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

async fn ask(world: &World, installation: &Installation) -> Result<BTreeMap<String, Vec<Choice>>> {
    world.runtime.fields(&scope(ACME), installation, "go").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_answers_in_either_binding_and_nothing_is_stored() {
    let plain = sh(r#"
        [ "$XP_CTX_RUN_MODE" = init ] || exit 3
        echo '"later"' > "$XP_STATE_OUT"
        printf '{"list":[{"value":"l-17","label":"%s"}]}' "$XP_CFG_FOLDER" > "$XP_RESULT_FILE"
    "#);
    let framed = framed(
        r#"
        say '{"type":"state","seq":1,"value":"later"}'
        say "{\"type\":\"result\",\"value\":{\"list\":[{\"value\":\"l-17\",\"label\":\"$XP_CFG_FOLDER\"}]}}"
        "#,
    );
    for script in [plain, framed] {
        let world = World::new([demo(script)]);
        let mut installation = install(&world, json!({ "folder": "stored" })).await;
        installation.config = json!({ "folder": "weekly" });
        let fields = ask(&world, &installation).await.unwrap();
        assert_eq!(fields["list"], [Choice::new("l-17", "weekly")]);
        assert!(world.executions(&installation).await.is_empty());
        assert_eq!(world.state(&installation, "go").await, Value::Null);
        let kept = world.installation(installation.id).await;
        assert_eq!(kept.config, json!({ "folder": "stored" }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_fails_or_says_nonsense_is_an_error() {
    let cases = [
        ("exit 1", Code::ScriptFailed),
        ("echo '[]' > \"$XP_RESULT_FILE\"", Code::ScriptOutputInvalid),
        ("echo 'not json' > \"$XP_RESULT_FILE\"", Code::ScriptOutputInvalid),
    ];
    for (text, code) in cases {
        let world = World::new([demo(sh(text))]);
        let installation = install(&world, json!({})).await;
        let error = ask(&world, &installation).await.unwrap_err();
        assert_eq!(error.code(), code, "{text}: {error}");
    }
    let world = World::new([demo(sh("true"))]);
    let installation = install(&world, json!({})).await;
    assert!(
        ask(&world, &installation).await.unwrap().is_empty(),
        "it has nothing to say"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_bounded_in_time() {
    let options = FlowOptions::default().limits(limits(|limits| {
        limits.wall_ms = 200;
        limits.grace_ms = 50;
    }));
    let endless = sh("while :; do sleep 1000; done");
    let demo = Integration::new("demo", "1.0.0").script_with("go", Trigger::call::<Value>(), endless, options);
    let world = World::new([demo.into()]);
    let installation = world.install("demo", json!({})).await;
    let error = ask(&world, &installation).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
}

/// Runs nothing, and remembers with what each run was to be made.
#[derive(Debug, Default)]
struct Looks(Mutex<Vec<Seen>>);

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: RunMode,
    connections: Vec<String>,
    secrets: Vec<String>,
    checkpoint: bool,
    wall_ms: u64,
}

/// Ends with a secret in its mouth, or never.
#[derive(Debug)]
struct Says(Option<String>);

#[async_trait]
impl Runner for Looks {
    fn name(&self) -> &'static str {
        "looks"
    }
    async fn probe(&self) -> IsolationReport {
        IsolationReport::new(Isolation::Machine, Vec::new(), Vec::new())
    }
    async fn prepare(&self, _: &Work, _: Isolation) -> Result<()> {
        Ok(())
    }
    async fn start(&self, spec: RunSpec) -> Result<Box<dyn RunHandle>> {
        let secret = spec
            .secrets
            .values()
            .next()
            .map(|secret| secret.expose_secret().to_owned());
        let never = spec.config == json!("never");
        self.0.lock().unwrap().push(Seen {
            mode: spec.mode,
            connections: spec.connections.into_keys().collect(),
            secrets: spec.secrets.keys().cloned().collect(),
            checkpoint: spec.checkpoint.is_some() || spec.stateful,
            wall_ms: spec.limits.wall_ms,
        });
        Ok(Box::new(Says(secret.filter(|_| !never))))
    }
}

#[async_trait]
impl RunHandle for Says {
    async fn wait(&mut self) -> RunOutcome {
        let end = match &self.0 {
            Some(secret) => RunEnd::Succeeded(json!({ "list": [secret] })),
            None => std::future::pending().await,
        };
        RunOutcome::new(end, Isolation::Machine)
    }
    async fn cancel(&mut self, why: StopReason, _: Duration) {
        assert_eq!(why, StopReason::Deadline);
        self.0 = Some("stopped".to_owned());
    }
}

#[tokio::test(start_paused = true)]
async fn it_gets_the_connections_chosen_so_far_and_its_secrets_do_not_come_out() {
    let script = Script::inline("sh", "true").needs_secrets();
    let looks = Arc::new(Looks::default());
    let demo = Integration::new("demo", "1.0.0")
        .connection("shop", "shop")
        .connection("crm", "shop")
        .script("go", Trigger::call::<Value>(), script);
    let world = World::run_by(looks.clone(), [demo.into()]);
    let mut installation = install(&world, json!({})).await;
    let fields = ask(&world, &installation).await.unwrap();
    let told = &fields["list"][0].value;
    assert!(!told.contains(CANARY), "{told}");
    installation.connections = [("crm".to_owned(), ConnectionId::mint(&*world.clock))].into();
    ask(&world, &installation).await.unwrap();
    installation.connections.clear();
    installation.secrets.clear();
    installation.config = json!("never");
    // Whatever the runner makes of the deadline.
    let begun = tokio::time::Instant::now();
    let late = ask(&world, &installation).await.unwrap();
    assert_eq!(late["list"], [Choice::new("stopped", "stopped")]);
    assert!(begun.elapsed() <= Duration::from_secs(30));
    let seen = looks.0.lock().unwrap();
    assert!(
        seen.iter()
            .all(|seen| seen.mode == RunMode::Init && !seen.checkpoint && seen.wall_ms == 20_000)
    );
    let slots: Vec<_> = seen.iter().map(|seen| seen.connections.clone()).collect();
    assert_eq!(slots, [vec!["shop".to_owned()], vec!["crm".to_owned()], Vec::new()]);
    assert!(seen[1].secrets.contains(&"token".to_owned()) && seen[2].secrets.is_empty());
}

struct Nothing;

#[async_trait]
impl Flow for Nothing {
    type Config = NoConfig;
    type Input = Value;
    type Output = ();
    async fn run(&self, _: &FlowContext<NoConfig>, _: Value) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn only_scripts_of_ones_own_installations_are_asked() {
    let demo = Integration::new("demo", "1.0.0").flow("go", Trigger::call::<Value>(), Nothing);
    let world = World::new([demo.into()]);
    let installation = world.install("demo", json!({})).await;
    assert_eq!(ask(&world, &installation).await.unwrap_err().code(), Code::Conflict);
    let stranger = world.runtime.fields(&scope("stranger"), &installation, "go").await;
    assert_eq!(stranger.unwrap_err().code(), Code::NotFound);
    let unknown = world.runtime.fields(&scope(ACME), &installation, "nothing").await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
}
