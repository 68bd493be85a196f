//! Programs in any language.

use crate::Isolation;
use std::{collections::BTreeMap, path::PathBuf};

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
    /// Whether it declared that it needs raw secrets.
    #[must_use]
    pub const fn wants_secrets(&self) -> bool {
        self.secrets
    }
}
