//! Programs in any language.

use crate::Isolation;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A program in any language that speaks the plain binding of `crosspoint/1` (see `docs/protocol.md`): configuration
/// and context in environment variables and files, logs on standard error, the result in a file, an exit code with a
/// meaning.
///
/// ```
/// use crosspoint_core::{Isolation, Script};
/// let script = Script::inline("sh", "echo '{\"ok\":true}' > \"$XP_RESULT_FILE\"").isolation(Isolation::Process);
/// ```
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    source: ScriptSource,
    isolation: Isolation,
    env_prefix: String,
    env: BTreeMap<String, String>,
    secrets: bool,
    protocol: Protocol,
    egress: Option<Egress>,
    root: Option<PathBuf>,
    layers: Vec<(String, PathBuf)>,
    warm: Option<Vec<String>>,
}

/// How a script and its supervisor talk: the bindings of `crosspoint/1` (see `docs/protocol.md`).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protocol {
    /// Environment variables, files and exit codes: nothing but the language itself is needed.
    #[default]
    Plain,
    /// Messages, one JSON object a line: in on standard input, out on a descriptor of their own. Logs with levels,
    /// progress, and state that is durable as soon as it is acknowledged.
    Framed,
    /// The same messages over HTTP, fetched and posted with a token of the run: for programs to which a pipe of their own is
    /// hard to hand. Only at [`Isolation::Process`], where a run can reach the host's loopback.
    Http,
}

/// What a script may reach over the network. From little to much.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Egress {
    /// Nothing.
    None,
    /// The connections of its installation, through a broker that adds the credential outside: the secret never enters.
    #[default]
    Broker,
    /// Its connections as with [`Egress::Broker`], and these hosts through a proxy that resolves their names itself and
    /// refuses addresses that are not public. Each is a name with or without a port (443 unless given); `*.example.com`
    /// means every name below.
    Allow(Vec<String>),
    /// Whatever the host itself can reach. Below [`Isolation::Confined`] nothing less can be enforced.
    Open,
}

impl Egress {
    /// No more than `most`. Of two lists of hosts, those that are on both.
    ///
    /// ```
    /// use crosspoint_core::Egress;
    /// let asked = Egress::Allow(vec!["a.example".to_owned(), "b.example".to_owned()]);
    /// let most = Egress::Allow(vec!["b.example".to_owned(), "c.example".to_owned()]);
    /// assert_eq!(asked.clone().within(&most), Egress::Allow(vec!["b.example".to_owned()]));
    /// assert_eq!(asked.within(&Egress::Broker), Egress::Broker);
    /// ```
    #[must_use]
    pub fn within(self, most: &Self) -> Self {
        match (self, most) {
            (Self::Allow(mut asked), Self::Allow(most)) => {
                asked.retain(|host| most.contains(host));
                Self::Allow(asked)
            }
            (asked, most) if asked.reach() <= most.reach() => asked,
            _ => most.clone(),
        }
    }

    const fn reach(&self) -> u8 {
        match self {
            Self::None => 0,
            Self::Broker => 1,
            Self::Allow(_) => 2,
            Self::Open => 3,
        }
    }

    /// As in records and reports.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Broker => "broker",
            Self::Allow(_) => "allow",
            Self::Open => "open",
        }
    }
}

/// Where the program comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScriptSource {
    /// A program with arguments, run in a folder.
    Command {
        /// A path, or a name that is looked up in `PATH`.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// The folder it runs in; a private temporary one unless given.
        dir: Option<PathBuf>,
    },
    /// Source text for an interpreter.
    Inline {
        /// The interpreter: a path, or a name that is looked up in `PATH`.
        interpreter: String,
        /// The text; it is put in a file, whose path is the interpreter's only argument.
        text: String,
    },
}

impl Script {
    /// A program with arguments.
    pub fn command<A: Into<String>>(program: impl Into<String>, args: impl IntoIterator<Item = A>) -> Self {
        Self::of(ScriptSource::Command {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            dir: None,
        })
    }

    /// Source text for an interpreter, such as `include_str!("export.sh")` for `sh`.
    pub fn inline(interpreter: impl Into<String>, text: impl Into<String>) -> Self {
        Self::of(ScriptSource::Inline {
            interpreter: interpreter.into(),
            text: text.into(),
        })
    }

    fn of(source: ScriptSource) -> Self {
        Self {
            source,
            isolation: Isolation::Sandboxed,
            env_prefix: "XP".to_owned(),
            env: BTreeMap::new(),
            secrets: false,
            protocol: Protocol::Plain,
            egress: None,
            root: None,
            layers: Vec::new(),
            warm: None,
        }
    }

    /// Runs the command in this folder. Without effect on inline scripts.
    pub fn dir(mut self, folder: impl Into<PathBuf>) -> Self {
        if let ScriptSource::Command { dir, .. } = &mut self.source {
            *dir = Some(folder.into());
        }
        self
    }

    /// The weakest isolation that is acceptable; [`Isolation::Sandboxed`] unless set. Where the machine cannot enforce
    /// it, the script is refused.
    pub const fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// The prefix of the environment variables; `XP` unless set. With `PAN`, scripts written for Pandium run unchanged.
    pub fn env_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.env_prefix = prefix.into();
        self
    }

    /// Runs the command in the folder `below` of `root`, and shows it all of `root`. Without effect on inline scripts.
    pub fn dir_in(mut self, root: impl Into<PathBuf>, below: impl AsRef<Path>) -> Self {
        let root = root.into();
        let dir = root.join(below);
        self.root = Some(root);
        self.dir(dir)
    }

    /// A further folder that the script reads and cannot write, such as packages that it needs; at most eight. Where it is
    /// differs with the isolation, and is told in this environment variable: `PYTHONPATH`, for instance.
    pub fn layer(mut self, variable: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        self.layers.push((variable.into(), folder.into()));
        self
    }

    /// Keeps interpreters ready for this script, each with these modules imported, so that a run starts in a fraction of a
    /// millisecond where it is made often. Only for Python: source text for it, or a command whose first argument is the
    /// file; anything else is refused with `setup-invalid`.
    ///
    /// An interpreter serves one run of one customer and ends with it. The modules are imported before anything of the run
    /// is known: what they read from the environment while they are imported is that of [`env`](Self::env) alone. With none
    /// ready, the run starts as always, with the same outcome. See `docs/protocol.md`.
    ///
    /// ```
    /// use crosspoint_core::Script;
    /// let script = Script::inline("python3", "import ssl, json\nprint(json.dumps(ssl.OPENSSL_VERSION))");
    /// let script = script.warm(["ssl", "json", "urllib.request"]);
    /// assert_eq!(script.warm_imports().unwrap().len(), 3);
    /// ```
    pub fn warm<M: Into<String>>(mut self, imports: impl IntoIterator<Item = M>) -> Self {
        self.warm = Some(imports.into_iter().map(Into::into).collect());
        self
    }

    /// Sets a further environment variable. Not for secrets.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Declares that the script needs raw secrets: those of the configuration and the fields of its connections'
    /// credentials, as files in `XP_SECRETS_DIR`.
    pub const fn needs_secrets(mut self) -> Self {
        self.secrets = true;
        self
    }

    /// How the script and its supervisor talk; [`Protocol::Plain`] unless set.
    pub const fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// What the script may reach over the network: [`Egress::Broker`] unless set, or [`Egress::Open`] for a script that
    /// is content with less than [`Isolation::Confined`]. Where the machine cannot enforce it, the script is refused.
    pub fn egress(mut self, egress: Egress) -> Self {
        self.egress = Some(egress);
        self
    }

    /// Where the program comes from.
    #[must_use]
    pub const fn source(&self) -> &ScriptSource {
        &self.source
    }
    /// The weakest isolation that is acceptable.
    #[must_use]
    pub const fn required_isolation(&self) -> Isolation {
        self.isolation
    }
    /// The prefix of the environment variables.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.env_prefix
    }
    /// Further environment variables.
    #[must_use]
    pub const fn environment(&self) -> &BTreeMap<String, String> {
        &self.env
    }
    /// The folder that it is shown, if that is more than the one it runs in.
    #[must_use]
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }
    /// Further folders that it reads, each with the variable that tells where it is.
    #[must_use]
    pub fn layers(&self) -> &[(String, PathBuf)] {
        &self.layers
    }
    /// The modules to be imported ahead, if interpreters are to be kept ready.
    #[must_use]
    pub fn warm_imports(&self) -> Option<&[String]> {
        self.warm.as_deref()
    }
    /// How the script and its supervisor talk.
    #[must_use]
    pub const fn spoken(&self) -> Protocol {
        self.protocol
    }
    /// What it may reach over the network when it runs at this isolation.
    #[must_use]
    pub fn reachable(&self, isolation: Isolation) -> Egress {
        match &self.egress {
            Some(egress) => egress.clone(),
            None if isolation < Isolation::Confined => Egress::Open,
            None => Egress::Broker,
        }
    }
    /// Whether it declared that it needs raw secrets.
    #[must_use]
    pub const fn wants_secrets(&self) -> bool {
        self.secrets
    }
}
