//! `requirements.txt`, by pip.
//!
//! Only ready-made wheels are installed: building one would run its code. For the same reason the file may name packages
//! of the index and nothing else, as an option in it would go before ours.

use super::{Dependencies, failed, tool};
use crate::artifacts::invalid;
use crosspoint_core::{Problem, Result};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

pub(super) const FILE: &str = "requirements.txt";

/// Whether the file names any package; refuses lines that name something else.
pub(super) fn check(lock: &[u8], warnings: &mut Vec<String>) -> Result<bool> {
    let text = std::str::from_utf8(lock).map_err(|_| invalid("requirements.txt is not UTF-8"))?;
    let mut problems = Vec::new();
    let mut loose = Vec::new();
    let mut any = false;
    for (number, line) in logical_lines(text) {
        match requirement(&line) {
            Ok(pinned) => {
                any = true;
                if !pinned {
                    loose.push(line.split_whitespace().next().unwrap_or_default().to_owned());
                }
            }
            Err(why) => problems.push(Problem::new("", format!("requirements.txt, line {number}: {why}"))),
        }
    }
    if !problems.is_empty() {
        return Err(invalid("requirements.txt has lines that are not taken").with_problems(problems));
    }
    if !loose.is_empty() {
        warnings.push(format!(
            "requirements.txt names no exact version of {}: what is installed now is kept, and may not be what you tested \
             with (`==`)",
            loose.join(", ")
        ));
    }
    Ok(any)
}

/// Lines without comments, joined where they end with a backslash, with the number of the first.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let (start, mut joined) = open.take().unwrap_or((index + 1, String::new()));
        let line = line.trim_end();
        let comment = line.starts_with('#') || line.trim_start().starts_with('#');
        if let (Some(part), false) = (line.strip_suffix('\\'), comment) {
            joined.push_str(part);
            open = Some((start, joined));
            continue;
        }
        if !comment {
            joined.push_str(line.split(" #").next().unwrap_or_default());
        }
        lines.push((start, joined));
    }
    lines.extend(open);
    lines.retain(|(_, line)| !line.trim().is_empty());
    lines
}

/// A package of the index: a name, extras, versions, a marker and hashes. Answers whether its version is exact.
fn requirement(line: &str) -> std::result::Result<bool, String> {
    let line = line.trim();
    let (wish, options) = match line.find(" --") {
        Some(at) => line.split_at(at),
        None => (line, ""),
    };
    if let Some(other) = options.split_whitespace().find(|option| !option.starts_with("--hash=")) {
        return Err(format!("`{other}` is an option, and only `--hash=` is taken"));
    }
    if wish.starts_with('-') {
        return Err("options are not taken: name the packages, and give the operators the index".to_owned());
    }
    let (wish, _marker) = wish.split_once(';').unwrap_or((wish, ""));
    if wish.contains('@') || wish.contains('/') || wish.contains('\\') || wish.contains(':') {
        return Err("addresses and files are not taken: only packages of the index, by name".to_owned());
    }
    let end = wish
        .find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .unwrap_or(wish.len());
    let (name, rest) = wish.split_at(end);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("a line begins with the name of a package".to_owned());
    }
    let known = |c: char| c.is_ascii_alphanumeric() || " []()<>=!~,.*+-_".contains(c);
    if !rest.chars().all(known) {
        return Err(format!("what stands behind `{name}` is no version"));
    }
    Ok(rest.contains("==") && !rest.contains('*'))
}

/// The version of the interpreter, with all that decides which wheels it takes.
pub(super) async fn interpreter(work: &Path, dependencies: &Dependencies) -> Result<String> {
    let code =
        "import sys, sysconfig; print(sys.implementation.cache_tag, sys.version.split()[0], sysconfig.get_platform())";
    let args = ["-I", "-c", code].map(OsString::from);
    let said = tool::run("python3", &args, &[], work, dependencies).await?;
    Ok(said.trim().to_owned())
}

/// Installs into a folder below `work`.
pub(super) async fn install(work: &Path, lock: &[u8], dependencies: &Dependencies) -> Result<PathBuf> {
    let (file, target) = (work.join(FILE), work.join("packages"));
    std::fs::write(&file, lock).map_err(|e| failed("requirements.txt cannot be copied").caused_by(e))?;
    let mut args = Vec::new();
    args.extend(
        [
            "-m",
            "pip",
            "install",
            "--only-binary",
            ":all:",
            "--no-compile",
            "--no-input",
            "--no-cache-dir",
            "--disable-pip-version-check",
            "--no-warn-script-location",
            "--progress-bar",
            "off",
            "--target",
        ]
        .map(OsString::from),
    );
    args.extend([target.clone().into(), "-r".into(), file.into()]);
    // No settings of the machine's users: what the operators want stands in the variables.
    let own = [
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONNOUSERSITE", "1"),
    ];
    tool::run("python3", &args, &own, work, dependencies).await?;
    // Programs that packages bring along are for a shell; nobody calls them here.
    drop(std::fs::remove_dir_all(target.join("bin")));
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_the_index_are_taken() {
        let mut warnings = Vec::new();
        let text = "# ours\nrequests==2.32.3\nattrs>=23.1,<25 ; python_version > '3.8'\nhttpx[http2] == 0.27.0 # for speed\n\n\
                    a==1.0 \\\n  --hash=sha256:00 \\\n  --hash=sha256:01\n";
        assert!(check(text.as_bytes(), &mut warnings).unwrap());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("attrs"), "{warnings:?}");
        assert!(!check(b"# nothing\n\n", &mut warnings).unwrap());
    }

    #[test]
    fn what_could_run_code_or_read_files_is_refused_line_by_line() {
        let lines = [
            "-e .",
            "--index-url https://evil.example",
            "--no-binary :all:",
            "-r other.txt",
            "./local",
            "../local.whl",
            "git+https://github.com/a/b",
            "a @ https://evil.example/a.whl",
            "a @ file:///etc/passwd",
            "https://evil.example/a.whl",
            "a==1 --global-option=x",
            "a==1 --config-settings=x",
            "C:\\local",
            "a==1 \\\n --no-binary=:all:",
            "# comment \\\n-e .",
        ];
        let error = check(lines.join("\n").as_bytes(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.problems().len(), lines.len(), "{error:?}");
    }
}
