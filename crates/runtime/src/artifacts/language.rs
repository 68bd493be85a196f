//! What runs the file that a flow begins with.

/// What a flow is written in: it says which interpreter runs the entry, and which packages it needs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Language {
    /// A program for this machine: the entry is executed itself. Its executable bit has to be set. A script with a `#!`
    /// line is such a program, too.
    #[default]
    Static,
    /// `python3`; packages from `requirements.txt`.
    Python,
    /// `node`; packages from `package-lock.json`.
    Node,
    /// `sh`.
    Sh,
    /// `perl`.
    Perl,
    /// `ruby`.
    Ruby,
    /// `php`.
    Php,
    /// `java`: a `.jar`, or one file of source text.
    Java,
}

impl Language {
    /// The program that runs the entry, and what stands between it and the entry.
    pub(super) fn command(self, entry: &str, args: &[String]) -> (String, Vec<String>) {
        let interpreter = match self {
            Self::Static => {
                // With a slash it is a path below the artifact, and never looked up in PATH.
                return (format!("./{}", entry.trim_start_matches("./")), args.to_vec());
            }
            Self::Python => "python3",
            Self::Node => "node",
            Self::Sh => "sh",
            Self::Perl => "perl",
            Self::Ruby => "ruby",
            Self::Php => "php",
            Self::Java => "java",
        };
        let mut all = Vec::with_capacity(args.len() + 2);
        let jar = entry
            .rsplit_once('.')
            .is_some_and(|(_, end)| end.eq_ignore_ascii_case("jar"));
        if self == Self::Java && jar {
            all.push("-jar".to_owned());
        }
        // A file name that begins with `-` is no option.
        all.push(format!("./{}", entry.trim_start_matches("./")));
        all.extend_from_slice(args);
        (interpreter.to_owned(), all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_a_path_below_the_artifact_and_never_an_option() {
        let args = ["--fast".to_owned()];
        let (program, all) = Language::Python.command("-c", &args);
        assert_eq!(
            (program.as_str(), all),
            ("python3", vec!["./-c".into(), "--fast".into()])
        );
        assert_eq!(Language::Static.command("bin/tool", &[]).0, "./bin/tool");
        assert_eq!(Language::Java.command("app.JAR", &[]).1, ["-jar", "./app.JAR"]);
        assert_eq!(Language::Java.command("App.java", &[]).1, ["./App.java"]);
    }
}
