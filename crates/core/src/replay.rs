//! What an execution runs with when it repeats another.

use serde_json::Value;

/// With which configuration a replay runs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReplayConfig {
    /// What the installation has when the attempt begins: version, settings, secrets and connections.
    #[default]
    Current,
    /// What the last attempt of the repeated execution ran with. It is kept for as long as that execution is.
    Original,
}

/// What becomes of the state that a replay would save.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ReplayState {
    /// It is saved, as that of every execution.
    #[default]
    Save,
    /// The code sees the flow's state and may change it, but nothing of that is saved: neither the final state, nor
    /// checkpoints, nor the cursor of a poll. What it does outside happens all the same.
    Discard,
}

/// How a replay differs from the first time.
///
/// ```
/// use crosspoint_core::{ReplayConfig, ReplayOptions, ReplayState};
/// let options = ReplayOptions::default().config(ReplayConfig::Original).state(ReplayState::Discard);
/// assert!(options.input.is_none(), "the same input");
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
#[non_exhaustive]
pub struct ReplayOptions {
    /// Another input in place of the original one.
    pub input: Option<Value>,
    /// With which configuration it runs; the present one unless set.
    pub config: ReplayConfig,
    /// What becomes of its state; it is saved unless set.
    pub state: ReplayState,
}

impl ReplayOptions {
    /// With another input.
    pub fn input(mut self, input: Value) -> Self {
        self.input = Some(input);
        self
    }

    /// With this configuration.
    pub const fn config(mut self, config: ReplayConfig) -> Self {
        self.config = config;
        self
    }

    /// With its state saved or discarded.
    pub const fn state(mut self, state: ReplayState) -> Self {
        self.state = state;
        self
    }
}
