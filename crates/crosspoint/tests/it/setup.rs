//! What is refused before anything runs.

use crosspoint::{core::TargetId, prelude::*};

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Unrenderable {
    /// A tuple has no form
    pair: (u8, String),
}

fn keys() -> KeyRing {
    KeyRing::generate().unwrap()
}

/// The error with which a platform with this integration refuses to start.
async fn refusal<C>(integration: Integration<C>) -> Error {
    let builder = Platform::builder().store(Memory::new()).keys(keys());
    builder.integration(integration).start().await.unwrap_err()
}

#[tokio::test]
async fn a_platform_without_store_or_keys_says_what_is_missing() {
    let error = Platform::builder().keys(keys()).start().await.unwrap_err();
    assert_eq!(error.code(), Code::SetupInvalid);
    assert!(error.message().contains(".store("), "{error}");
    let error = Platform::builder().store(Memory::new()).start().await.unwrap_err();
    assert_eq!(error.code(), Code::KeysMissing);
    assert!(error.message().contains(".keys("), "{error}");
}

#[tokio::test]
async fn an_integration_needs_its_connector_and_at_least_one_flow() {
    let incomplete = Integration::new("orders", "1.0.0").connection("shop", "no-such-connector");
    let error = refusal(incomplete).await;
    assert_eq!(error.code(), Code::SetupInvalid);
    assert_eq!(error.problems().len(), 2, "{error}");
}

#[tokio::test]
async fn a_form_that_cannot_be_shown_is_refused_at_start() {
    let script = Script::command("sh", ["-c", "true"]).isolation(Isolation::Process);
    let integration =
        Integration::new("odd", "1.0.0")
            .config::<Unrenderable>()
            .script("run", Trigger::call::<()>(), script);
    let error = refusal(integration).await;
    assert_eq!(error.code(), Code::SetupInvalid);
    assert!(error.to_string().contains("pair"), "{error}");
}

#[tokio::test]
async fn a_script_that_asks_for_more_isolation_than_there_is_is_refused_with_the_cure() {
    let script = Script::inline("sh", "true").isolation(Isolation::Machine);
    let integration = Integration::new("strict", "1.0.0").script("run", Trigger::call::<()>(), script);
    let error = refusal(integration).await;
    assert_eq!(error.code(), Code::IsolationUnavailable);
    assert!(
        error
            .context()
            .iter()
            .any(|(key, value)| *key == "flow" && value == "run"),
        "{error}"
    );
}

#[tokio::test]
async fn an_interpreter_that_does_not_exist_is_refused_at_start() {
    let script = Script::inline("no-such-interpreter", "x").isolation(Isolation::Process);
    let integration = Integration::new("lost", "1.0.0").script("run", Trigger::call::<()>(), script);
    let error = refusal(integration).await;
    assert_eq!(error.code(), Code::ScriptNotStarted);
}

#[tokio::test]
async fn a_bad_target_name_is_an_error_and_not_a_panic() {
    let platform = Platform::builder()
        .store(Memory::new())
        .keys(keys())
        .start()
        .await
        .unwrap();
    assert_eq!(platform.dispatch("two words").unwrap_err().code(), Code::IdMalformed);
    assert!(TargetId::new("two words").is_err());
    platform.shutdown().await.unwrap();
}
