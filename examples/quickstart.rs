//! The shortest complete program: an integration that reacts to an event, installed for a customer, on a store in memory.
//! `cargo run --example quickstart`

use async_trait::async_trait;
use crosspoint::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Settings {
    /// Who is greeted in every line
    greeting: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct UserJoined {
    name: String,
}

impl Event for UserJoined {
    const NAME: &'static str = "user.joined";
}

struct Welcome;

#[async_trait]
impl Flow for Welcome {
    type Config = Settings;
    type Input = UserJoined;
    type Output = String;

    async fn run(&self, cx: &FlowContext<Settings>, user: UserJoined) -> Result<String> {
        cx.log(Level::Info, format!("{} was welcomed", user.name));
        Ok(format!("{}, {}!", cx.config().greeting, user.name))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let welcome = Integration::new("welcome", "1.0.0").config::<Settings>().flow(
        "welcome",
        Trigger::event::<UserJoined>(),
        Welcome,
    );
    let builder = Platform::builder().store(Memory::new()).keys(KeyRing::generate()?);
    let platform = builder.integration(welcome).start().await?;

    let acme = CustomerId::new("acme")?;
    let settings = serde_json::json!({ "greeting": "Hello" });
    platform.install(&acme, "welcome", settings).await?;
    for id in platform.emit(&acme, UserJoined { name: "Ann".into() }).await? {
        let reply = platform.wait(&acme, id, Duration::from_secs(5)).await?;
        println!("execution {id}: {}", String::from_utf8_lossy(reply.body()));
    }
    platform.shutdown().await
}
