//! The bindings of `crosspoint/1`: what a script finds in its environment and in its private folder.
//!
//! What all of them share is here: the environment, the context, what started the run. [`plain`] adds files, [`framed`]
//! the first message, [`pandium`] what scripts written for Pandium look for.

mod framed;
mod pandium;
mod plain;

pub(super) use framed::{LINE, RATE, start};

use super::launch::{Content, Input, MESSAGES, MESSAGES_FD, NETWORK, Place, Way};
use crosspoint_core::{
    Code, Egress, Error, ErrorExt, Protocol, Result, RunMode, RunSpec, Script, Timestamp, TriggerKind,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

/// Values above this are not found in a variable: the kernel takes none above 128 KiB.
const LONGEST_VARIABLE: usize = 32 * 1024;

/// The prefix of scripts that were written for Pandium.
const PANDIUM: &str = "PAN";

/// Whether a script keeps to Pandium's ways.
pub(super) fn is_pandium(script: &Script) -> bool {
    script.prefix() == PANDIUM && script.spoken() == Protocol::Plain
}

/// A run as its script sees it: the environment, complete, and what is in the private folder.
pub(super) struct Layout {
    pub(super) env: BTreeMap<OsString, OsString>,
    pub(super) inputs: Vec<Input>,
    /// Where the script runs, unless it says otherwise.
    pub(super) work: PathBuf,
    pub(super) place: Place,
    prefix: String,
}

impl Layout {
    fn new(script: &Script, base: &BTreeMap<OsString, OsString>, place: Place) -> Result<Self> {
        let prefix = script.prefix();
        let sound = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if prefix.is_empty() || !sound {
            let message = "the prefix of a script's variables is letters, digits and underscores";
            return Err(Error::new(Code::SetupInvalid, message).with("prefix", prefix));
        }
        let mut layout = Self {
            env: base.clone(),
            inputs: Vec::new(),
            work: PathBuf::new(),
            place,
            prefix: prefix.to_owned(),
        };
        layout.work = layout.folder("work");
        let tmp = layout.folder("tmp");
        layout.env.insert("HOME".into(), layout.work.clone().into());
        layout.env.insert("TMPDIR".into(), tmp.into());
        for (name, value) in script.environment() {
            layout.env.insert(name.into(), value.into());
        }
        Ok(layout)
    }

    /// Sets a variable under the script's prefix.
    fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.insert(format!("{}_{name}", self.prefix).into(), value.into());
    }

    /// Where something of this name is in the private folder.
    fn path(&self, name: &str) -> PathBuf {
        self.place.root.join(name)
    }

    fn put(&mut self, name: &str, content: Content, mode: u32) -> PathBuf {
        let name = name.to_owned();
        let path = self.path(&name);
        self.inputs.push(Input { name, content, mode });
        path
    }

    fn folder(&mut self, name: &str) -> PathBuf {
        self.put(name, Content::Folder, 0o700)
    }

    /// Puts a file into the private folder and answers where the script finds it.
    pub(super) fn file(&mut self, name: &str, content: Vec<u8>, mode: u32) -> PathBuf {
        self.put(name, Content::File(content), mode)
    }

    fn json(&mut self, name: &str, value: &Value) -> Result<PathBuf> {
        let content = serde_json::to_vec(value).or_fail(Code::Internal, "a JSON value does not serialise")?;
        Ok(self.file(name, content, 0o600))
    }

    /// Tells where the broker is, and the proxy if there is one. No variable tells clients of a proxy at a socket.
    fn network(&mut self, egress: &Egress) {
        let Some(url) = broker(&self.place) else { return };
        self.set("BROKER_URL", &url);
        if self.place.network == Some(Way::Socket) {
            let socket = self.path(NETWORK);
            self.set("NETWORK_SOCKET", socket);
        } else if matches!(egress, Egress::Allow(_)) {
            for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
                self.env.insert(name.into(), url.clone().into());
            }
            for name in ["NO_PROXY", "no_proxy"] {
                self.env.insert(name.into(), "127.0.0.1,localhost".into());
            }
            // Node looks at the others only when it is told to.
            self.env.insert("NODE_USE_ENV_PROXY".into(), "1".into());
        }
    }
}

/// The address of the broker, if there is one; over a socket the host in it means nothing.
fn broker(place: &Place) -> Option<String> {
    place.network.map(|way| match way {
        Way::Port(port) => format!("http://127.0.0.1:{port}"),
        Way::Socket => "http://localhost".to_owned(),
    })
}

/// What of a run's environment and folder is known before the run is.
pub(super) fn beforehand(script: &Script, base: &BTreeMap<OsString, OsString>, place: Place) -> Result<Layout> {
    Layout::new(script, base, place)
}

/// Lays out a run in its place. `base` is what every script gets: `PATH`, `LANG`, `TZ`.
pub(super) fn prepare(
    (spec, script): (&RunSpec, &Script),
    base: &BTreeMap<OsString, OsString>,
    place: Place,
    egress: &Egress,
    now: Timestamp,
) -> Result<Layout> {
    let mut layout = Layout::new(script, base, place)?;
    layout.network(egress);
    layout.set("PROTOCOL", "crosspoint/1");
    layout.set("RUN_KEY", spec.run_key.to_string());
    layout.set("DEADLINE", spec.deadline.to_string());
    for (name, value) in context(spec) {
        layout.set(&format!("CTX_{name}"), value);
    }
    for (name, value) in scalars(&spec.config) {
        layout.set(&format!("CFG_{name}"), value);
    }
    match script.spoken() {
        Protocol::Plain => {
            layout.set("BINDING", "plain");
            plain::files(&mut layout, spec, script, now)?;
        }
        Protocol::Framed => {
            layout.set("BINDING", "framed");
            if layout.place.descriptor {
                layout.set("OUT_FD", MESSAGES_FD.to_string());
            } else {
                let path = layout.path(MESSAGES);
                layout.set("OUT_PATH", path);
            }
        }
        Protocol::Http => {
            layout.set("BINDING", "http");
            let (url, token) = layout.place.desk.clone().ok_or_else(|| {
                let message =
                    "the http binding needs a run that can reach the host; at this level speak the framed one";
                Error::new(Code::SetupInvalid, message)
            })?;
            layout.set("HTTP_URL", url);
            layout.set("HTTP_TOKEN", token);
        }
        _ => {
            let message = "this runner does not know this binding of the protocol";
            return Err(Error::new(Code::SetupInvalid, message));
        }
    }
    Ok(layout)
}

fn context(spec: &RunSpec) -> [(&'static str, String); 8] {
    [
        ("CUSTOMER", spec.customer.to_string()),
        ("INSTALLATION", spec.installation.to_string()),
        ("INTEGRATION", spec.integration.as_ref().to_owned()),
        ("FLOW", spec.flow.as_ref().to_owned()),
        ("EXECUTION", spec.execution.to_string()),
        ("ATTEMPT", spec.attempt.to_string()),
        ("TRIGGER", trigger(spec.trigger).to_owned()),
        ("RUN_MODE", mode(spec.mode).to_owned()),
    ]
}

const fn mode(mode: RunMode) -> &'static str {
    match mode {
        RunMode::Init => "init",
        _ => "normal",
    }
}

const fn trigger(kind: TriggerKind) -> &'static str {
    match kind {
        TriggerKind::Event => "event",
        TriggerKind::Schedule => "schedule",
        TriggerKind::Webhook => "webhook",
        TriggerKind::FollowUp => "follow-up",
        _ => "call",
    }
}

/// What started the run, as an array of one envelope of `CloudEvents` 1.0.
fn triggers(spec: &RunSpec, now: Timestamp) -> Value {
    let kind = spec
        .event
        .as_deref()
        .map_or_else(|| format!("crosspoint.{}", trigger(spec.trigger)), str::to_owned);
    json!([{
        "specversion": "1.0",
        "id": spec.execution,
        "source": format!("/installations/{}", spec.installation),
        "type": kind,
        "time": now,
        "datacontenttype": "application/json",
        "data": spec.input,
    }])
}

/// Texts, numbers and booleans of the configuration's top level, by variable.
fn scalars(config: &Value) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in config.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        if text.len() <= LONGEST_VARIABLE && !text.contains('\0') {
            variables.insert(upper_snake(name), text);
        }
    }
    variables
}

/// `startDate`, `start-date` and `start_date` all become `START_DATE`.
fn upper_snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        });
    }
    out
}

/// The environment that every script gets, taken from the host's once.
pub(super) fn base_environment() -> BTreeMap<OsString, OsString> {
    let mut base = BTreeMap::new();
    for (name, otherwise) in [
        ("PATH", Some("/usr/local/bin:/usr/bin:/bin")),
        ("LANG", Some("C.UTF-8")),
        ("TZ", None),
    ] {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(value) = value.or_else(|| otherwise.map(OsString::from)) {
            base.insert(OsString::from(name), value);
        }
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosspoint_core::{Clock as _, CustomerId, InstallationId, InvocationId, SystemClock, Work};
    use std::sync::Arc;

    fn laid_out(script: &Script, place: Place, egress: &Egress) -> (Layout, Value) {
        let clock = SystemClock::new();
        let work = Work::Script(Arc::new(script.clone()));
        let (execution, installation) = (InvocationId::mint(&clock), InstallationId::mint(&clock));
        let acme = CustomerId::new("acme").unwrap();
        let spec = RunSpec::new(execution, acme, installation, "go", work, clock.now());
        let layout = prepare((&spec, script), &BTreeMap::new(), place, egress, clock.now()).unwrap();
        let start = serde_json::from_slice(&start(&layout, &spec, script, clock.now()).unwrap()).unwrap();
        (layout, start)
    }

    #[test]
    fn a_script_finds_its_own_where_its_place_is() {
        let script = Script::inline("sh", "").protocol(Protocol::Framed).env_prefix("A");
        let place = |descriptor, network| Place {
            root: "/w".into(),
            descriptor,
            network,
            desk: None,
        };
        let value = |layout: &Layout, name: &str| layout.env.get(std::ffi::OsStr::new(name)).cloned();
        let (inside, start) = laid_out(&script, place(true, Some(Way::Port(8899))), &Egress::Allow(Vec::new()));
        for (name, expected) in [
            ("A_OUT_FD", "3"),
            ("A_BROKER_URL", "http://127.0.0.1:8899"),
            ("https_proxy", "http://127.0.0.1:8899"),
            ("HOME", "/w/work"),
            ("TMPDIR", "/w/tmp"),
        ] {
            assert_eq!(value(&inside, name), Some(expected.into()), "{name}");
        }
        assert_eq!(value(&inside, "A_OUT_PATH"), None);
        assert_eq!(
            (&start["broker"], &start["network_socket"]),
            (&json!("http://127.0.0.1:8899"), &Value::Null)
        );
        let (socket, start) = laid_out(&script, place(false, Some(Way::Socket)), &Egress::Broker);
        for (name, expected) in [
            ("A_OUT_PATH", "/w/messages"),
            ("A_BROKER_URL", "http://localhost"),
            ("A_NETWORK_SOCKET", "/w/network"),
        ] {
            assert_eq!(value(&socket, name), Some(expected.into()), "{name}");
        }
        assert_eq!(
            (value(&socket, "A_OUT_FD"), value(&socket, "https_proxy")),
            (None, None)
        );
        assert_eq!(start["network_socket"], "/w/network");
        let http = script.clone().protocol(Protocol::Http);
        let clock = SystemClock::new();
        let (execution, installation) = (InvocationId::mint(&clock), InstallationId::mint(&clock));
        let work = Work::Script(Arc::new(http.clone()));
        let acme = CustomerId::new("acme").unwrap();
        let spec = RunSpec::new(execution, acme, installation, "go", work, clock.now());
        let refused = prepare(
            (&spec, &http),
            &BTreeMap::new(),
            place(true, None),
            &Egress::None,
            clock.now(),
        );
        assert_eq!(
            refused.err().unwrap().code(),
            Code::SetupInvalid,
            "a host that cannot be reached"
        );
        let (alone, start) = laid_out(&script, place(true, None), &Egress::None);
        assert_eq!((value(&alone, "A_BROKER_URL"), &start["broker"]), (None, &Value::Null));
    }

    #[test]
    fn names_become_variables() {
        for (name, variable) in [
            ("startDate", "START_DATE"),
            ("start-date", "START_DATE"),
            ("start_date", "START_DATE"),
            ("URL2Path", "URL2_PATH"),
            ("größe", "GR__E"),
        ] {
            assert_eq!(upper_snake(name), variable);
        }
    }

    #[test]
    fn only_scalars_become_variables() {
        let config = json!({ "a": "x", "b": 1.5, "c": true, "d": null, "e": [1], "f": { "$secret": "f" }, "g": "\0" });
        let variables: Vec<_> = scalars(&config).into_iter().collect();
        let expected = [("A", "x"), ("B", "1.5"), ("C", "true")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(variables, expected);
    }
}
