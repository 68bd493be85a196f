//! What a guest has said so far, judged message by message. No input or output here.

use super::{
    super::{
        binding::{LINE, RATE},
        output::Output,
    },
    Fault, PACE, Said, VOLUME,
    message::{Failed, Hello, Kind, Log, Metric, Outcome, Progress, State},
    to_guest::ToGuest,
};
use crosspoint_core::{Audience, Code, Error, Level, MetricKind, Retry, RunMode, RunSpec, Watch};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Names of metrics that are kept.
const METRICS: usize = 100;

/// Characters of a guest's own words in an error.
const MESSAGE: usize = 2000;

/// A state that is to be kept.
#[derive(Debug)]
pub(super) struct Pending {
    /// The newest number that it covers.
    pub(super) seq: Option<u64>,
    pub(super) value: Value,
    bytes: u64,
}

impl Pending {
    /// How long the store is left alone after this one.
    pub(super) fn pace(&self) -> Duration {
        PACE.max(Duration::from_millis(self.bytes.saturating_mul(1000) / VOLUME))
    }
}

/// How many messages there were in this second.
#[derive(Debug)]
struct Rate {
    since: Instant,
    count: u32,
}

impl Rate {
    fn admits(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= RATE
    }
}

/// Everything of a conversation that is not a task.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) said: Said,
    pub(super) to_guest: ToGuest,
    pub(super) pending: Option<Pending>,
    /// No more will come.
    pub(super) over: bool,
    /// As the guest sees it.
    state: Value,
    mode: RunMode,
    checkpoints: bool,
    state_bytes: u64,
    result_bytes: u64,
    output: Output,
    watch: Option<Arc<dyn Watch>>,
    rate: Rate,
    metrics: BTreeMap<String, f64>,
    /// Not understood, or of a kind that is not known.
    unknown: u64,
    /// Too many, or too long.
    dropped: u64,
}

impl Heard {
    pub(super) fn new(spec: &RunSpec, output: Output) -> Self {
        Self {
            said: Said::default(),
            to_guest: ToGuest::default(),
            pending: None,
            over: false,
            state: spec.state.value.clone(),
            mode: spec.mode,
            checkpoints: spec.checkpoint.is_some(),
            state_bytes: spec.limits.state_bytes,
            result_bytes: spec.limits.result_bytes,
            output,
            watch: spec.watch.clone(),
            rate: Rate {
                since: Instant::now(),
                count: 0,
            },
            metrics: BTreeMap::new(),
            unknown: 0,
            dropped: 0,
        }
    }

    /// Hears a line.
    pub(super) fn hear(&mut self, line: &[u8], now: Instant) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(line);
        let Ok(kind) = serde_json::from_str::<Kind<'_>>(&text) else {
            self.unknown += 1;
            return;
        };
        match &*kind.kind {
            "log" | "metric" | "progress" if !self.rate.admits(now) => self.dropped += 1,
            "log" => self.read(&text, Self::log),
            "metric" => self.read(&text, Self::metric),
            "progress" => self.read(&text, Self::progress),
            "hello" => self.read(&text, Self::hello),
            "state" => match serde_json::from_str(&text) {
                Ok(message) => self.state(message),
                Err(error) => self.said.refused_state = Some(self.malformed("state", error)),
            },
            "result" => match serde_json::from_str(&text) {
                Ok(message) => self.result(message),
                Err(error) => self.said.refused_result = Some(self.malformed("result", error)),
            },
            "error" => self.error(serde_json::from_str(&text).unwrap_or_default()),
            _ => self.unknown += 1,
        }
    }

    /// A line that was longer than any message may be. It may have been a state or a result.
    pub(super) fn too_long(&mut self, bytes: u64) {
        self.dropped += 1;
        let message = "the script sent a message that is longer than its result and its state may be";
        let error = || Error::new(Code::ScriptOutputInvalid, message).with("bytes", bytes);
        self.said.refused_state = Some(error());
        self.said.refused_result = Some(error());
        self.to_guest.refuse(None, "too-large", "the message is too long");
    }

    fn read<'a, M: Deserialize<'a>>(&mut self, text: &'a str, then: impl FnOnce(&mut Self, M)) {
        match serde_json::from_str(text) {
            Ok(message) => then(self, message),
            Err(_) => self.unknown += 1,
        }
    }

    fn malformed(&mut self, what: &str, error: serde_json::Error) -> Error {
        let message = format!("the script's message `{what}` is not as it should be");
        self.to_guest.refuse(None, "malformed", &message);
        Error::new(Code::ScriptOutputInvalid, message).caused_by(error)
    }

    fn hello(&mut self, hello: Hello) {
        if hello.v != 1 {
            let message = format!(
                "the script speaks version {} of the protocol, and this host version 1",
                hello.v
            );
            let error = Error::new(Code::ScriptFailed, message).with_retry(Retry::Never);
            self.said.fault.get_or_insert(Fault::Failed(error));
        }
    }

    fn log(&mut self, log: Log) {
        let (level, audience) = (log.level(), log.audience());
        self.output.entry(level, audience, log.text());
    }

    fn progress(&mut self, progress: Progress) {
        let text = progress.text();
        self.output.entry(Level::Debug, Audience::Developer, text);
        if let Some(watch) = &self.watch {
            watch.progress(progress.at(self.output.clock().now()));
        }
    }

    fn metric(&mut self, metric: Metric) {
        let known = self.metrics.contains_key(&metric.name);
        if metric.name.len() > 200 || (!known && self.metrics.len() >= METRICS) {
            self.dropped += 1;
            return;
        }
        let kind = match metric.kind.as_deref() {
            Some("gauge") => MetricKind::Gauge,
            _ => MetricKind::Counter,
        };
        if let Some(watch) = &self.watch {
            watch.metric(&metric.name, kind, metric.value);
        }
        let value = self.metrics.entry(metric.name).or_insert(0.0);
        match kind {
            MetricKind::Gauge => *value = metric.value,
            _ => *value += metric.value,
        }
    }

    fn state(&mut self, message: State) {
        let seq = message.seq;
        if self.mode == RunMode::Init {
            self.to_guest.refuse(seq, "init", "nothing is kept in the mode `init`");
            return;
        }
        let state = match (message.value, message.patch) {
            (Some(value), None) => value,
            (None, Some(patch)) => {
                let mut state = match &self.state {
                    Value::Object(fields) => fields.clone(),
                    _ => Map::new(),
                };
                state.extend(patch);
                Value::Object(state)
            }
            _ => {
                let message = "a state has either a `value` or a `patch`";
                self.to_guest.refuse(seq, "malformed", message);
                self.said.refused_state = Some(Error::new(Code::ScriptOutputInvalid, message));
                return;
            }
        };
        let bytes = size(&state);
        if bytes > self.state_bytes {
            let message = "the state is larger than the limit";
            self.to_guest.refuse(seq, "too-large", message);
            let error = Error::new(Code::ScriptOutputInvalid, message);
            self.said.refused_state = Some(error.with("limit_bytes", self.state_bytes));
            return;
        }
        self.said.refused_state = None;
        self.state.clone_from(&state);
        if self.checkpoints {
            let earlier = self.pending.take().and_then(|pending| pending.seq);
            self.pending = Some(Pending {
                seq: seq.or(earlier),
                value: state,
                bytes,
            });
        } else {
            self.said.state = Some(state);
        }
    }

    /// A state that could not be kept: it waits again, unless a newer one does already.
    pub(super) fn put_back(&mut self, old: Pending) {
        match &mut self.pending {
            Some(newer) => newer.seq = newer.seq.or(old.seq),
            None => self.pending = Some(old),
        }
    }

    fn result(&mut self, message: Outcome) {
        if size(&message.value) > self.result_bytes {
            let message = "the script's result is larger than the limit";
            self.to_guest.refuse(None, "too-large", message);
            let error = Error::new(Code::ScriptOutputInvalid, message);
            self.said.refused_result = Some(error.with("limit_bytes", self.result_bytes));
            return;
        }
        self.said.refused_result = None;
        self.said.result = Some(message.value);
    }

    fn error(&mut self, failed: Failed) {
        let word = failed.code.unwrap_or_default();
        let (code, verdict) = match word.as_str() {
            "credentials-refused" => (Code::CredentialsRefused, Retry::Reauthorize),
            "input-invalid" | "config-invalid" => (Code::ScriptFailed, Retry::Never),
            _ => (Code::ScriptFailed, Retry::Backoff),
        };
        let verdict = match (verdict, failed.retryable, failed.retry_after_ms) {
            (Retry::Reauthorize, ..) => verdict,
            (_, Some(false), _) => Retry::Never,
            (_, _, Some(after)) => Retry::At(self.output.clock().now().plus(Duration::from_millis(after))),
            (_, Some(true), None) => Retry::Backoff,
            (otherwise, None, None) => otherwise,
        };
        let message: String = failed.message.unwrap_or_default().chars().take(MESSAGE).collect();
        let message = if message.trim().is_empty() {
            "the script said that it failed, and not why".to_owned()
        } else {
            message
        };
        let word: String = word.chars().take(100).collect();
        let error = Error::new(code, message).with_retry(verdict).with("script_code", word);
        self.said.error = Some(error);
    }

    /// All that was said, and what is worth a line of log.
    pub(super) fn take(&mut self) -> (Said, Vec<String>) {
        let mut said = std::mem::take(&mut self.said);
        if let Some(pending) = self.pending.take() {
            said.state = Some(pending.value);
        }
        let metrics = std::mem::take(&mut self.metrics).into_iter();
        let mut notes: Vec<String> = metrics.map(|(name, value)| format!("Metric {name}: {value}")).collect();
        for note in &mut notes {
            self.output.redact(note);
        }
        if self.dropped > 0 {
            let most = format!("at most {RATE} a second and {LINE} bytes each are kept");
            notes.push(format!("{} messages were dropped: {most}", self.dropped));
        }
        if self.unknown > 0 {
            notes.push(format!("{} messages were not understood and left out", self.unknown));
        }
        (said, notes)
    }
}

/// How long a value is as JSON, without making it.
fn size(value: &Value) -> u64 {
    struct Count(u64);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redactor;
    use crosspoint_core::{Clock as _, CustomerId, Fence, InstallationId, InvocationId, Script, SystemClock, Work};
    use serde_json::json;
    use std::sync::Arc;

    #[derive(Debug)]
    struct Nowhere;

    #[async_trait::async_trait]
    impl crosspoint_core::Checkpoint for Nowhere {
        async fn save(&self, _: Value) -> crosspoint_core::Result<u64> {
            Ok(1)
        }
    }

    /// Remembers what it heard.
    #[derive(Debug, Default)]
    struct Hears(std::sync::Mutex<Vec<String>>);

    impl Watch for Hears {
        fn progress(&self, said: crosspoint_core::Progress) {
            let told = format!("{:?} of {:?}: {:?}", said.done, said.total, said.text);
            self.0.lock().unwrap().push(told);
        }
        fn metric(&self, name: &str, kind: MetricKind, value: f64) {
            self.0.lock().unwrap().push(format!("{name} {kind:?} {value}"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn progress_and_numbers_are_told_at_once_as_far_as_they_are_admitted() {
        let (mut heard, _output) = heard();
        let hears = Arc::new(Hears::default());
        heard.watch = Some(Arc::<Hears>::clone(&hears));
        let now = Instant::now();
        for line in [
            &br#"{"type":"progress","done":3,"total":8.5,"message":"orders"}"#[..],
            br#"{"type":"progress","message":"tidying up"}"#,
            br#"{"type":"progress","done":"3"}"#,
            br#"{"type":"metric","name":"orders","value":2}"#,
            br#"{"type":"metric","name":"left","kind":"gauge","value":0.5}"#,
            br#"{"type":"metric","name":"left","value":1e999}"#,
        ] {
            heard.hear(line, now);
        }
        let told = std::mem::take(&mut *hears.0.lock().unwrap());
        assert_eq!(
            told,
            [
                "Some(3.0) of Some(8.5): Some(\"orders\")",
                "None of None: Some(\"tidying up\")",
                "orders Counter 2",
                "left Gauge 0.5",
            ]
        );
        for n in 0..RATE * 2 {
            let line = format!(r#"{{"type":"metric","name":"m{n}","value":1}}"#);
            heard.hear(line.as_bytes(), now);
        }
        let told = hears.0.lock().unwrap().len();
        assert_eq!(told, METRICS - 2, "no more names than the log has");
    }

    fn heard() -> (Heard, Output) {
        let clock = Arc::new(SystemClock::new());
        let work = Work::Script(Arc::new(Script::inline("sh", "")));
        let (execution, installation) = (InvocationId::mint(&*clock), InstallationId::mint(&*clock));
        let acme = CustomerId::new("acme").unwrap();
        let mut spec = RunSpec::new(execution, acme, installation, "go", work, clock.now());
        spec.fence = Fence::new(1);
        spec.checkpoint = Some(Arc::new(Nowhere));
        spec.limits.state_bytes = 20;
        let output = Output::new(Redactor::default(), clock, 1 << 20);
        (Heard::new(&spec, output.clone()), output)
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_has_so_many_messages() {
        let (mut heard, output) = heard();
        let log = br#"{"type":"log","message":"x"}"#;
        for second in 1..=3_usize {
            for _ in 0..RATE * 2 {
                heard.hear(log, Instant::now());
            }
            assert_eq!(output.take().log.len(), RATE as usize, "{second}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(heard.dropped, u64::from(RATE) * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn states_and_results_are_never_dropped_for_their_number() {
        let (mut heard, _) = heard();
        for n in 0..RATE * 3 {
            heard.hear(
                format!(r#"{{"type":"state","seq":{n},"value":{n}}}"#).as_bytes(),
                Instant::now(),
            );
        }
        heard.hear(br#"{"type":"result","value":7}"#, Instant::now());
        let pending = heard.pending.as_ref().unwrap();
        assert_eq!((pending.seq, &pending.value), (Some(2999), &json!(2999)));
        assert_eq!((heard.said.result.take(), heard.dropped), (Some(json!(7)), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn patches_build_on_what_was_sent() {
        let (mut heard, _) = heard();
        let now = Instant::now();
        heard.hear(br#"{"type":"state","seq":1,"patch":{"a":1}}"#, now);
        heard.hear(br#"{"patch":{"b":2},"type":"state"}"#, now);
        let old = heard.pending.take().unwrap();
        assert_eq!(
            (old.seq, &old.value),
            (Some(1), &json!({ "a": 1, "b": 2 })),
            "a state without a number is kept too"
        );
        heard.hear(
            br#"{"type":"state","seq":3,"patch":{"a":"a long text that is too long"}}"#,
            now,
        );
        assert!(heard.pending.is_none() && heard.said.refused_state.is_some());
        heard.put_back(old);
        heard.hear(br#"{"type":"state","seq":4,"patch":{"a":3}}"#, now);
        assert_eq!(
            heard.pending.as_ref().unwrap().value,
            json!({ "a": 3, "b": 2 }),
            "what was refused left no trace"
        );
        let newer = heard.pending.as_ref().unwrap().seq;
        heard.put_back(Pending {
            seq: Some(1),
            value: json!("old"),
            bytes: 5,
        });
        assert_eq!(heard.pending.as_ref().unwrap().seq, newer);
    }

    #[test]
    fn a_large_state_leaves_the_store_alone_for_longer() {
        let pace = |bytes| {
            Pending {
                seq: None,
                value: Value::Null,
                bytes,
            }
            .pace()
            .as_millis()
        };
        assert_eq!([0, 40_000, 1 << 20].map(pace), [10, 10, 250]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_understood_is_counted_and_left_out() {
        let (mut heard, output) = heard();
        let deep = format!(
            r#"{{"type":"log","message":"x","fields":{}{}}}"#,
            "[".repeat(9000),
            "]".repeat(9000)
        );
        for line in [
            &b"\xff\xfe"[..],
            b"[1]",
            b"{\"no\":\"type\"}",
            b"{\"type\":7}",
            b"{\"type\":\"log\"}",
            b"{\"type\":\"log\",\"message\":7}",
            b"{\"type\":\"metric\",\"name\":\"x\"}",
            b"{\"type\":\"of tomorrow\"}",
            deep.as_bytes(),
        ] {
            heard.hear(line, Instant::now());
        }
        heard.hear(b"  \r", Instant::now());
        heard.hear(b"{\"type\":\"log\",\"message\":\"\xff\\u0000\"}", Instant::now());
        assert_eq!(heard.unknown, 9);
        assert_eq!(output.take().log[0].message, "\u{fffd}\u{fffd}");
    }
}
