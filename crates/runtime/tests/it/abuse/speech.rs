//! What scripts say and leave behind in order to do harm.

use super::{Host, isolated, levels, python, run, shell};
use crate::{
    framed::start_with,
    machine::{PYTHON, has},
    scripts::{failure, limits, spec, succeeded, texts},
};
use crosspoint_core::{Code, Protocol, RunEnd, Runner, Script, StopReason};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_of_output() {
    let long = std::env::var_os("CROSSPOINT_LONG").is_some_and(|v| v == "1");
    let half: u64 = if long { 512 << 20 } else { 128 << 20 };
    for level in levels().await {
        let text = format!(
            r#"
            head -c {half} /dev/zero >&2 &
            yes '{{"level":"error"}}' | head -c 16777216
            head -c {half} /dev/zero
            wait
            echo '"done"' > "$XP_RESULT_FILE"
            "#
        );
        let before = resident();
        let run = tokio::spawn(async move { run(shell(level, &text), |limits| limits.log_bytes = 1 << 20).await });
        let mut most = 0;
        while !run.is_finished() {
            most = most.max(resident().saturating_sub(before));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let outcome = run.await.unwrap();
        assert_eq!(succeeded(&outcome), "done", "{level}");
        assert!(outcome.log_dropped >= 2 * half, "{level}: {}", outcome.log_dropped);
        let kept: usize = outcome.log.iter().map(|line| line.message.len()).sum();
        assert!(kept < 4 << 20, "{level}: {kept}");
        // Other tests run beside this one in the same process.
        assert!(most < 128 << 20, "{level}: the host grew by {most}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_an_end() {
    for level in levels().await {
        let text = r#"
            printf 'a\377b\000c\n'
            printf '\033]0;title\007\r\b%%s\n' >&2
            head -c 8388608 /dev/zero | tr '\0' 'x'
            echo '"done"' > "$XP_RESULT_FILE"
        "#;
        let outcome = run(shell(level, text), |_| {}).await;
        assert_eq!(succeeded(&outcome), "done", "{level}");
        let lines = texts(&outcome);
        assert!(lines.contains(&"a\u{fffd}b\u{fffd}c"), "{level}");
        assert!(
            lines.iter().all(|line| line.len() < 300 * 1024 && !line.contains('\0')),
            "{level}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_read() {
    for level in levels().await {
        let script = shell(level, "sleep 0.5").protocol(Protocol::Framed);
        let started = start_with(script, |spec| spec.config = json!({ "much": "x".repeat(3 << 20) })).await;
        let mut run = started.unwrap();
        let outcome = tokio::time::timeout(Duration::from_secs(60), run.wait()).await;
        let outcome = outcome.expect("a run ends though it reads nothing");
        assert!(!matches!(outcome.end, RunEnd::Stopped(_)), "{level}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_outputs() {
    for level in levels().await {
        let lives = "exec >&- 2>&-; sleep 0.5; echo '\"alive\"' > \"$XP_RESULT_FILE\"";
        assert_eq!(succeeded(&run(shell(level, lives), |_| {}).await), "alive", "{level}");
        let stays = "exec >&- 2>&- <&-; while :; do sleep 1; done";
        let outcome = run(shell(level, stays), |limits| {
            (limits.wall_ms, limits.grace_ms) = (1500, 200);
        })
        .await;
        assert!(
            matches!(outcome.end, RunEnd::Stopped(StopReason::Deadline)),
            "{level}: {outcome:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_no_files() {
    let ways = [
        "ln -s /etc/passwd \"$F\"",
        "ln -s \"$XP_STATE_FILE\" \"$F\"",
        "echo 1 > a; ln a \"$F\"",
        "ln \"$XP_STATE_FILE\" \"$F\"",
        "mkfifo \"$F\"",
        "mkdir \"$F\"",
        "ln -s /dev/zero \"$F\"",
        "ln -s /proc/self/environ \"$F\"",
        "ln -s . \"$F\"",
        "ln -s \"$F\" \"$F\"",
        "perl -e 'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); chdir($ARGV[0] =~ s{/[^/]*$}{}r); \
         bind(S, sockaddr_un($ARGV[0] =~ s{.*/}{}r)) or die $!' \"$F\"",
    ];
    for level in levels().await {
        for name in ["XP_RESULT_FILE", "XP_STATE_OUT"] {
            let texts = ways.map(|way| format!("set -e; F=${name}; {way}"));
            for text in texts {
                if text.contains("perl") && !has("perl") {
                    continue;
                }
                let outcome = run(shell(level, &text), |_| {}).await;
                assert_eq!(
                    failure(&outcome).0,
                    Code::ScriptOutputInvalid,
                    "{level}: {text}: {outcome:?}"
                );
                assert!(outcome.state.is_none(), "{level}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_too_much() {
    for level in levels().await {
        for name in ["XP_RESULT_FILE", "XP_STATE_OUT"] {
            for (letters, fits) in [(998, true), (999, false)] {
                let text =
                    format!("{{ printf '\"'; head -c {letters} /dev/zero | tr '\\0' x; printf '\"'; }} > \"${name}\"");
                let outcome = run(shell(level, &text), |limits| {
                    (limits.result_bytes, limits.state_bytes) = (1000, 1000);
                })
                .await;
                if fits {
                    assert!(matches!(outcome.end, RunEnd::Succeeded(_)), "{level}: {outcome:?}");
                } else {
                    assert_eq!(failure(&outcome).0, Code::ScriptOutputInvalid, "{level}: {outcome:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_is_nested_without_end() {
    for level in levels().await {
        for name in ["XP_RESULT_FILE", "XP_STATE_OUT"] {
            let text = format!("head -c 1000000 /dev/zero | tr '\\0' '[' > \"${name}\"");
            let outcome = run(shell(level, &text), |_| {}).await;
            assert_eq!(failure(&outcome).0, Code::ScriptOutputInvalid, "{level}: {outcome:?}");
        }
    }
}

/// Deeper than a path is long, deeper than there are descriptors.
#[tokio::test(flavor = "multi_thread")]
async fn trees_that_are_hard_to_remove() {
    if !has(PYTHON) {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let text = "
import os
name = 'n' * 255
start = os.getcwd()
for n in range(6000):
    try:
        os.mkdir(name if n % 2 else 'd')
        os.chdir(name if n % 2 else 'd')
    except OSError:
        break
print(n)
open('last', 'w').close()
os.chmod('.', 0)
os.chdir(start)
os.mkdir('locked')
for n in range(50):
    os.makedirs(f'locked/{n}/{n}')
    open(f'locked/{n}/' + '\\\\\\n\\t\\x01' + name[:200], 'w').close()
    os.chmod(f'locked/{n}/{n}', 0)
    os.chmod(f'locked/{n}', 0o500)
os.chmod('locked', 0)
os.chmod(start, 0)
";
    for level in levels().await {
        let host = Host::new();
        let runner = host.runner.clone().folders_in(parent.path());
        let before = fs::read_dir("/proc/self/fd").unwrap().count();
        let spec = spec(python(level, text), &*host.clock);
        let outcome = runner.start(spec).await.unwrap().wait().await;
        assert!(matches!(outcome.end, RunEnd::Succeeded(_)), "{level}: {outcome:?}");
        assert_eq!(
            fs::read_dir(parent.path()).unwrap().count(),
            0,
            "{level}: {:?}",
            texts(&outcome)
        );
        eprintln!("{level}: {:?}, {before} descriptors before", texts(&outcome));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_the_one() {
    for level in isolated().await {
        let text = r#"
            root="$(cd "$HOME/.." && pwd)"
            mv "$root" "$root-moved" 2>/dev/null && exit 65
            rmdir "$root" 2>/dev/null && exit 65
            cd "$root"
            mv work other && ln -s /etc work && ln -s / tmp2
            echo '"mine"' > "$XP_RESULT_FILE"
        "#;
        let outcome = run(shell(level, text), |_| {}).await;
        assert_eq!(succeeded(&outcome), "mine", "{level}");
    }
    assert!(fs::metadata("/etc/passwd").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_variables_of_megabytes() {
    let much = "x".repeat(4 << 20);
    for level in levels().await {
        let host = Host::new();
        let argument = Script::command("sh", ["-c", "true", &much]).isolation(level);
        let variable = shell(level, "true").env("MUCH", &much);
        let many = (0..200_000).map(|n| n.to_string().repeat(4));
        let arguments =
            Script::command("sh", ["-c".to_owned(), "true".to_owned()].into_iter().chain(many)).isolation(level);
        for script in [argument, variable, arguments] {
            let refused = host.start("acme", script, limits(|_| {})).await;
            assert_eq!(
                refused.err().map(|error| error.code()),
                Some(Code::ScriptNotStarted),
                "{level}"
            );
        }
        let next = host
            .run(shell(level, "echo 1 > \"$XP_RESULT_FILE\""), limits(|_| {}))
            .await;
        assert_eq!(succeeded(&next), &Value::from(1), "{level}: the next one runs");
    }
}
