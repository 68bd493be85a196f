//! Keeps secrets out of everything that is written down.

use crosspoint_core::{Error, ExposeSecret, Failure, LogEntry, SecretString};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// Shorter values would blank out half of every log, and protect nothing.
const SHORTEST: usize = 4;

/// What stands in a secret's place.
const MASK: &str = "[secret]";

/// Replaces known secret values wherever they turn up.
///
/// A secret is found as it is, as it looks inside a JSON text, and line by line if it has several lines. A value of less
/// than four bytes is not looked for, and neither is a secret that the code has transformed (base64, a hash).
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    /// Longest first, so that a secret which contains another is replaced as a whole.
    needles: Vec<String>,
}

impl Redactor {
    pub(crate) fn new(secrets: &BTreeMap<String, SecretString>) -> Self {
        let mut needles = Vec::new();
        for secret in secrets.values() {
            let plain = secret.expose_secret();
            needles.extend(plain.lines().map(|line| line.trim().to_owned()));
            let json = Value::from(plain).to_string();
            needles.push(json.trim_matches('"').to_owned());
            needles.push(plain.to_owned());
        }
        needles.retain(|needle| needle.len() >= SHORTEST);
        needles.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        needles.dedup();
        Self { needles }
    }

    /// How many bytes the longest of them has; 0 if there are none.
    pub(crate) fn longest(&self) -> usize {
        self.needles.first().map_or(0, String::len)
    }

    /// Where to cut `text` at or after `at`, so that no secret is cut in two.
    pub(crate) fn cut(&self, text: &[u8], at: usize) -> usize {
        let mut cut = at;
        loop {
            let inside = self.needles.iter().find_map(|needle| {
                let from = cut.saturating_sub(needle.len().saturating_sub(1));
                let window = text.get(from..)?;
                let hit = window.windows(needle.len()).position(|w| w == needle.as_bytes())? + from;
                let end = hit + needle.len();
                (hit < cut && cut < end).then_some(end)
            });
            match inside {
                Some(end) => cut = end,
                None => return cut.min(text.len()),
            }
        }
    }

    pub(crate) fn text(&self, text: &mut String) {
        for needle in &self.needles {
            if text.contains(needle.as_str()) {
                *text = text.replace(needle.as_str(), MASK);
            }
        }
    }

    pub(crate) fn log(&self, lines: &mut [LogEntry]) {
        if self.needles.is_empty() {
            return;
        }
        for line in lines {
            self.text(&mut line.message);
        }
    }

    pub(crate) fn value(&self, value: &mut Value) {
        if self.needles.is_empty() {
            return;
        }
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                let dirty = fields
                    .keys()
                    .any(|key| self.needles.iter().any(|n| key.contains(n.as_str())));
                if dirty {
                    *fields = std::mem::take(fields)
                        .into_iter()
                        .map(|(mut key, value)| {
                            self.text(&mut key);
                            (key, value)
                        })
                        .collect();
                }
                fields.values_mut().for_each(|field| self.value(field));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// What is recorded of an error.
    pub(crate) fn failure(&self, error: &Error) -> Failure {
        let mut failure = Failure::from(error);
        self.text(&mut failure.message);
        failure
    }

    /// The error with its facts and causes, for the author.
    pub(crate) fn details(&self, error: &Error) -> String {
        let mut text = format!("{error:?}");
        self.text(&mut text);
        text
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} values)", self.needles.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        let named = secrets.iter().enumerate();
        Redactor::new(&named.map(|(n, s)| (n.to_string(), SecretString::from(*s))).collect())
    }

    #[test]
    fn every_form_of_a_secret_is_replaced() {
        let redactor = redactor(&["pa\"ss\nword-two", "word-two-longer"]);
        for text in [
            "a pa\"ss\nword-two b",
            "{\"x\":\"pa\\\"ss\\nword-two\"}",
            "only word-two",
            "word-two-longer",
        ] {
            let mut text = text.to_owned();
            redactor.text(&mut text);
            assert!(text.contains(MASK) && !text.contains("word-two"), "{text}");
        }
        assert!(!format!("{redactor:?}").contains("word"));
    }

    #[test]
    fn keys_and_values_of_json_are_searched() {
        let mut value = serde_json::json!({ "canary-1": ["x canary-1 y", 3], "b": { "c": "canary-1" } });
        redactor(&["canary-1"]).value(&mut value);
        assert_eq!(
            value,
            serde_json::json!({ "[secret]": ["x [secret] y", 3], "b": { "c": "[secret]" } })
        );
    }

    #[test]
    fn short_values_are_left_alone() {
        let mut text = "a b c".to_owned();
        redactor(&["a", ""]).text(&mut text);
        assert_eq!(text, "a b c");
    }

    #[test]
    fn a_cut_moves_behind_the_secret_it_would_split() {
        let redactor = redactor(&["canary"]);
        let text = b"0123canary89";
        for at in 5..10 {
            assert_eq!(redactor.cut(text, at), 10, "{at}");
        }
        assert_eq!(redactor.cut(text, 4), 4);
        assert_eq!(redactor.cut(text, 10), 10);
        assert_eq!(redactor.cut(text, 99), 12);
    }
}
