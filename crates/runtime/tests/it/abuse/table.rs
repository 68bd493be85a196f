//! Every attack, and the levels that stop it.

use super::{files, kernel, network, others};
use crosspoint_core::Isolation;
use std::{fmt::Write, fs, path::Path};

/// What a level does about an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// It fails, whoever the host's user is.
    Stops,
    /// It succeeds: the tests see it do so.
    Open,
    /// It fails if the host runs as root, because customers then have users of their own, and succeeds otherwise.
    OwnUser,
    /// It depends on what else the host's user, its kernel or its container allow.
    Varies,
}

use Holds::{Open, OwnUser, Stops, Varies};

/// How it is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Proof {
    /// A script in Python that calls `reached(..)` for what it got.
    Script(&'static str),
    /// A test: its file below `crates/runtime`, and its name.
    Test(&'static str, &'static str),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// At process, confined and sandboxed.
    pub(super) holds: [Holds; 3],
    pub(super) proof: Proof,
}

impl Attack {
    pub(super) fn at(&self, level: Isolation) -> Holds {
        match level {
            Isolation::Sandboxed => self.holds[2],
            Isolation::Confined => self.holds[1],
            _ => self.holds[0],
        }
    }
}

pub(super) const fn script(name: &'static str, holds: [Holds; 3], text: &'static str) -> Attack {
    Attack {
        name,
        holds,
        proof: Proof::Script(text),
    }
}

const fn test(name: &'static str, holds: [Holds; 3], file: &'static str, test: &'static str) -> Attack {
    Attack {
        name,
        holds,
        proof: Proof::Test(file, test),
    }
}

const BOMBS: &str = "tests/it/abuse/bombs.rs";
const SPEECH: &str = "tests/it/abuse/speech.rs";
const ENDS: &str = "tests/it/abuse/ends.rs";
const LEAKS: &str = "tests/it/abuse/leaks.rs";
const PROXY: &str = "src/egress/tests/proxy.rs";
const SERVER: &str = "src/egress/tests/abuse.rs";

const TAKING: &[Attack] = &[
    test("memory of one process", [Stops; 3], BOMBS, "memory_of_one_process"),
    test(
        "memory of many processes",
        [Stops; 3],
        BOMBS,
        "memory_of_many_processes",
    ),
    test(
        "memory by files in memory",
        [Open, Stops, Stops],
        BOMBS,
        "files_in_memory",
    ),
    test(
        "memory of the kernel in sockets that nobody reads",
        [Open, Open, Open],
        BOMBS,
        "sockets_that_nobody_reads",
    ),
    test(
        "processor time on many threads",
        [Stops; 3],
        BOMBS,
        "processor_time_on_many_threads",
    ),
    test(
        "processor time in many processes",
        [Open, Stops, Stops],
        BOMBS,
        "processor_time_in_many_processes",
    ),
    test(
        "more of the processors, by a crowd of processes",
        [Open, Stops, Stops],
        BOMBS,
        "a_crowd_steps_back",
    ),
    test(
        "more of the processors, by further sessions",
        [Open, Stops, Stops],
        BOMBS,
        "a_share_for_each_session",
    ),
    test("fork bomb", [Open, Stops, Stops], BOMBS, "forks_and_threads"),
    test("thread bomb", [Open, Stops, Stops], BOMBS, "forks_and_threads"),
    test("zombie farm", [Open, Stops, Stops], BOMBS, "a_farm_of_zombies"),
    test("disk fill by one file", [Stops; 3], BOMBS, "disk"),
    test("disk fill by many files", [Open, Open, Stops], BOMBS, "disk"),
    test("inode fill", [Open, Open, Stops], BOMBS, "inodes"),
    test("every descriptor", [Stops; 3], BOMBS, "descriptors"),
    test("core dumps", [Stops; 3], BOMBS, "a_crash_leaves_no_core"),
    test(
        "arguments and variables of megabytes",
        [Stops; 3],
        SPEECH,
        "arguments_and_variables_of_megabytes",
    ),
];

const SPEAKING: &[Attack] = &[
    test(
        "gigabytes on standard output and error",
        [Stops; 3],
        SPEECH,
        "a_gigabyte_of_output",
    ),
    test(
        "one line without an end, NUL, invalid UTF-8",
        [Stops; 3],
        SPEECH,
        "a_line_without_an_end",
    ),
    test(
        "never reads its standard input",
        [Stops; 3],
        SPEECH,
        "what_is_never_read",
    ),
    test("closes its outputs and lives on", [Stops; 3], SPEECH, "closed_outputs"),
    test(
        "a link, second name, FIFO, device, folder or socket as result or state",
        [Stops; 3],
        SPEECH,
        "results_that_are_no_files",
    ),
    test(
        "a result or state of one byte too much",
        [Stops; 3],
        SPEECH,
        "a_byte_too_much",
    ),
    test(
        "a result that is nested without end",
        [Stops; 3],
        SPEECH,
        "a_result_that_is_nested_without_end",
    ),
    test(
        "deep, long-named or locked trees left behind",
        [Stops; 3],
        SPEECH,
        "trees_that_are_hard_to_remove",
    ),
    test(
        "the private folder renamed or replaced",
        [Varies, Stops, Stops],
        SPEECH,
        "a_folder_that_is_not_the_one",
    ),
    test(
        "a secret in the log",
        [Stops; 3],
        "tests/it/scripts.rs",
        "secrets_are_there_when_declared_and_never_in_what_is_written",
    ),
    test(
        "a flood of messages",
        [Stops; 3],
        "tests/it/framed.rs",
        "a_flood_of_messages_is_read_and_dropped",
    ),
];

const STAYING: &[Attack] = &[
    test(
        "a child in another session, forked twice",
        [Open, Stops, Stops],
        ENDS,
        "another_session",
    ),
    test("stops itself by SIGSTOP", [Stops; 3], ENDS, "stopped_and_deaf"),
    test("ignores SIGTERM", [Stops; 3], ENDS, "stopped_and_deaf"),
    test(
        "lives on when the host is killed",
        [Open, Stops, Stops],
        ENDS,
        "no_run_outlives_its_host",
    ),
    test(
        "descriptors, threads, mounts, groups, zombies, folders of many runs",
        [Stops; 3],
        LEAKS,
        "many_runs_leave_nothing",
    ),
];

const PROXIES: &[Attack] = &[
    test(
        "the proxy: a name that turns private (DNS rebinding)",
        [Varies, Varies, Stops],
        PROXY,
        "a_name_that_turns_private_is_refused",
    ),
    test(
        "the proxy: the metadata address in every notation",
        [Varies, Varies, Stops],
        PROXY,
        "the_metadata_address_is_refused_in_every_notation",
    ),
    test(
        "the proxy: hosts that no rule names",
        [Varies, Varies, Stops],
        PROXY,
        "only_hosts_of_the_rules_are_reached",
    ),
    test(
        "the broker: heads without end (slowloris)",
        [Varies, Stops, Stops],
        SERVER,
        "a_head_that_never_ends_is_cut_off",
    ),
    test(
        "the broker: ten thousand sockets",
        [Varies, Stops, Stops],
        SERVER,
        "ten_thousand_sockets_come_and_go",
    ),
    test(
        "the broker: smuggled requests",
        [Varies, Stops, Stops],
        SERVER,
        "a_body_ends_where_it_says_and_nothing_follows_it",
    ),
];

/// By theme.
pub(super) fn themes() -> [(&'static str, &'static [Attack]); 8] {
    [
        ("Taking all there is", TAKING),
        ("What it says and leaves", SPEAKING),
        ("Living on", STAYING),
        ("Files of the host", files::ATTACKS),
        ("Other processes and other runs", others::ATTACKS),
        ("The network", network::ATTACKS),
        ("The ways out", PROXIES),
        ("The kernel", kernel::ATTACKS),
    ]
}

const HEAD: &str = "# What each level stops

Made from the abuse suite (`crates/runtime/tests/it/abuse`), which makes every attack below at every level, as root and as
an ordinary user, and fails where this page is wrong. Renewed by `CROSSPOINT_UPDATE=1 cargo test -p crosspoint-runtime
--test it abuse::table`.

- **stops**: the attack fails.
- **no**: it succeeds. Scripts that may not do this need a higher level.
- **as root**: it fails where the host runs as root, because each customer then has a user of its own; where the host is
  an ordinary user, the script has that user's rights here.
- **varies**: it depends on what the host's user, the kernel or the container allow anyway; or the level has no such
  way out.

What a neighbour notices of an attack is measured by `cargo run --release -p crosspoint-benches --example neighbour`. How
processors are shared out, and why a run may not open a session (`setsid`), is decided in
[0020](decisions/0020-crowds-step-back.md). While a run uses a processor without pause, others are started where the host is,
so that they do not wait for the kernel's clock to make room elsewhere: without it, their median beside two such runs on two
processors is three times as long as in quiet. A helper process of the host's that somebody kills is replaced: its runs end with
an error that is tried again, none at a lower level.

Some things that the tables do not say. The kernel forgets the processor time of children that nobody waits for. What they were seen
to use, 5 to 50 times a second, is remembered, and of a script that ignores the end of its children (`SIGCHLD`) an estimate is
added for those that were never seen. Whoever has them forgotten in another way (`SA_NOCLDWAIT`) uses unseen what those use that
live for less than a look; the deadline holds, and crowds step back. And root without `CAP_SYS_NICE`, as in most containers, cannot
make the crowd of a `confined` run step back.

Without a control group memory is what the kernel shows of each process, with its page tables and with all that it maps in shared
mappings without a file, whether or not there are pages in them; pages of such a mapping of which the rest was given back are not
seen. What the kernel keeps for a run besides (buffers of sockets and
pipes, locks, watches) is bounded by the numbers of open files and processes only; `vmsplice`, which would keep whole huge pages
there, and `io_setup`, of which the machine has one number for all, are refused, as are leases on files (`F_SETLEASE`), which let
others wait. Where the host is an ordinary user, runs share its number of `inotify` instances. Who is killed dies on the share of
the processors that it has: a `sandboxed` run that has given itself the least of it and competes with other runs of its own may
take seconds to be gone, in which nobody else waits for it.

## Through bubblewrap

A host may have bubblewrap make the sandboxes (`SandboxOptions::bubblewrap`; why, and what it costs, is decided in
[0021](decisions/0021-bubblewrap-is-an-option.md)). The column `sandboxed` holds then too: all of this suite's attacks pass
through it as well (`CROSSPOINT_BUBBLEWRAP=1`), and `crates/runtime/tests/it/bubblewrap.rs` makes those again that tell them apart
in every run of the tests. What is different:

- There is no Landlock behind the mount namespace: a fault of the kernel's in one of them is not caught by the other.
- Runs have unix sockets only, as at `confined`. The broker is reached at `XP_NETWORK_SOCKET`; `Egress::Allow` is refused with
  `isolation-unavailable`, so that the rows about the proxy do not apply.
- `getrlimit` and `prlimit` do not answer about `RLIMIT_RTTIME`, as at `confined`: a mark lies in it.
- An inode fill is ended by the host, which looks at each run 5 to 20 times a second, not by the kernel.
- What of `/proc` tells of the machine is covered up by empty folders and closed files; there it has names, and nothing else.
- A script that says itself that it ended with exit code 132, 133, 135, 136, 137, 139 or 159 is taken for one that was killed by
  the signal that is 128 less: bubblewrap tells both in the same way.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (theme, attacks) in themes() {
        write!(
            page,
            "\n## {theme}\n\n| Attack | `process` | `confined` | `sandboxed` |\n|---|---|---|---|\n"
        )
        .unwrap();
        for attack in attacks {
            let words = attack.holds.map(|holds| match holds {
                Stops => "stops",
                Open => "no",
                OwnUser => "as root",
                Varies => "varies",
            });
            writeln!(page, "| {} | {} |", attack.name, words.join(" | ")).unwrap();
        }
    }
    page
}

/// The page is for people who decide by it, so it says what the tests say.
#[test]
fn the_page_says_what_the_tests_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/isolation.md");
    let page = page();
    if std::env::var_os("CROSSPOINT_UPDATE").is_some_and(|v| v == "1") {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/isolation.md is behind: run this test with CROSSPOINT_UPDATE=1"
    );
}

#[test]
fn every_test_that_is_named_exists() {
    for attack in themes().iter().flat_map(|(_, attacks)| *attacks) {
        if let Proof::Test(file, name) = attack.proof {
            let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
            assert!(
                text.contains(&format!("fn {name}(")),
                "{}: {file} has no {name}",
                attack.name
            );
        }
    }
}
