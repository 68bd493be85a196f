//! The messages of a guest.

use crosspoint_core::{Audience, Level, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// What a line is, found out without reading the rest of it.
#[derive(Debug, Deserialize)]
pub(super) struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Hello {
    pub(super) v: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Log {
    #[serde(default)]
    pub(super) level: Option<String>,
    pub(super) message: String,
    #[serde(default)]
    pub(super) fields: Option<Map<String, Value>>,
    #[serde(default)]
    pub(super) audience: Option<String>,
}

impl Log {
    pub(super) fn level(&self) -> Level {
        match self.level.as_deref() {
            Some("debug") => Level::Debug,
            Some("warn") => Level::Warn,
            Some("error") => Level::Error,
            _ => Level::Info,
        }
    }

    pub(super) fn audience(&self) -> Audience {
        match self.audience.as_deref() {
            Some("customer") => Audience::Customer,
            _ => Audience::Developer,
        }
    }

    pub(super) fn text(self) -> String {
        match self.fields {
            Some(fields) if !fields.is_empty() => format!("{} {}", self.message, Value::Object(fields)),
            _ => self.message,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Metric {
    pub(super) name: String,
    #[serde(default)]
    pub(super) kind: Option<String>,
    pub(super) value: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Progress {
    #[serde(default)]
    pub(super) done: Option<f64>,
    #[serde(default)]
    pub(super) total: Option<f64>,
    #[serde(default)]
    pub(super) message: Option<String>,
}

impl Progress {
    /// As it is kept.
    pub(super) fn at(self, now: Timestamp) -> crosspoint_core::Progress {
        let mut progress = crosspoint_core::Progress::new(now);
        (progress.done, progress.total, progress.text) = (self.done, self.total, self.message);
        progress
    }

    pub(super) fn text(&self) -> String {
        let mut text = "Progress".to_owned();
        if let Some(done) = self.done {
            text = format!("{text}: {done}");
            if let Some(total) = self.total {
                text = format!("{text} of {total}");
            }
        }
        match &self.message {
            Some(message) => format!("{text}: {message}"),
            None => text,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct State {
    #[serde(default)]
    pub(super) seq: Option<u64>,
    /// Replaces the state whole. Present and null is another thing than absent.
    #[serde(default, deserialize_with = "present")]
    pub(super) value: Option<Value>,
    /// Replaces the fields that it names.
    #[serde(default)]
    pub(super) patch: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    #[serde(default)]
    pub(super) value: Value,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Failed {
    #[serde(default)]
    pub(super) code: Option<String>,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) retryable: Option<bool>,
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
