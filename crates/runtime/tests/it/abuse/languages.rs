//! Scripts in the languages of this machine, written from `docs/protocol.md` alone, sandboxed.

use super::levels;
use crate::{
    machine::{PYTHON, has},
    scripts::{demo, install},
    world::World,
};
use crosspoint_core::{Audience, ExecutionStatus, Isolation, Script};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Each adds one to the number in its state, greets whom the configuration names, and says so in the log.
const SH: &str = r#"
set -eu
n=$(tr -dc 0-9 < "$XP_STATE_FILE")
echo "greeting $XP_CFG_NAME" >&2
printf '{"n":%d}' $(( ${n:-0} + 1 )) > "$XP_STATE_OUT"
printf '{"hello":"%s","n":%d}' "$XP_CFG_NAME" $(( ${n:-0} + 1 )) > "$XP_RESULT_FILE"
"#;

const BASH: &str = r#"
set -euo pipefail
[[ $(<"$XP_STATE_FILE") =~ [0-9]+ ]] && n=${BASH_REMATCH[0]} || n=0
n=$((n + 1))
>&2 echo "greeting $XP_CFG_NAME"
cat <<< "{\"n\":$n}" > "$XP_STATE_OUT"
cat <<< "{\"hello\":\"$XP_CFG_NAME\",\"n\":$n}" > "$XP_RESULT_FILE"
"#;

const AWK: &str = r#"
BEGIN {
    getline line < ENVIRON["XP_STATE_FILE"]
    gsub(/[^0-9]/, "", line)
    n = line + 1
    name = ENVIRON["XP_CFG_NAME"]
    print "greeting " name
    printf "{\"n\":%d}", n > ENVIRON["XP_STATE_OUT"]
    printf "{\"hello\":\"%s\",\"n\":%d}", name, n > ENVIRON["XP_RESULT_FILE"]
}
"#;

const PERL: &str = r#"
use strict; use JSON::PP; use autodie;
sub slurp { local $/; open my $f, '<', shift; <$f> }
sub spew { open my $f, '>', shift; print $f encode_json(shift) }
my $config = decode_json(slurp($ENV{XP_CONFIG_FILE}));
my $state = JSON::PP->new->allow_nonref->decode(slurp($ENV{XP_STATE_FILE})) // {};
my $n = ($state->{n} // 0) + 1;
print STDERR "greeting $config->{name}\n";
spew($ENV{XP_STATE_OUT}, { n => $n });
spew($ENV{XP_RESULT_FILE}, { hello => $config->{name}, n => $n });
"#;

const PYTHON_TEXT: &str = r#"
import json, os, sys
config = json.load(open(os.environ['XP_CONFIG_FILE']))
state = json.load(open(os.environ['XP_STATE_FILE'])) or {}
n = state.get('n', 0) + 1
print('greeting', config['name'], file=sys.stderr)
json.dump({'n': n}, open(os.environ['XP_STATE_OUT'], 'w'))
json.dump({'hello': config['name'], 'n': n}, open(os.environ['XP_RESULT_FILE'], 'w'))
"#;

const NODE: &str = r#"
const fs = require('fs');
const read = name => JSON.parse(fs.readFileSync(process.env[name], 'utf8'));
const write = (name, value) => fs.writeFileSync(process.env[name], JSON.stringify(value));
const n = ((read('XP_STATE_FILE') || {}).n || 0) + 1, { name } = read('XP_CONFIG_FILE');
console.error('greeting ' + name);
write('XP_STATE_OUT', { n });
write('XP_RESULT_FILE', { hello: name, n });
"#;

const TCL: &str = r#"
set file [open $env(XP_STATE_FILE)]
set n 0
regexp {[0-9]+} [read $file] n
incr n
puts stderr "greeting $env(XP_CFG_NAME)"
set file [open $env(XP_STATE_OUT) w]
puts $file "{\"n\":$n}"
close $file
set file [open $env(XP_RESULT_FILE) w]
puts $file "{\"hello\":\"$env(XP_CFG_NAME)\",\"n\":$n}"
close $file
"#;

const JAVA: &str = r#"
import java.nio.file.*;
public class Main {
    static Path path(String name) { return Path.of(System.getenv(name)); }
    public static void main(String[] args) throws Exception {
        String digits = Files.readString(path("XP_STATE_FILE")).replaceAll("[^0-9]", "");
        int n = (digits.isEmpty() ? 0 : Integer.parseInt(digits)) + 1;
        String name = System.getenv("XP_CFG_NAME");
        System.err.println("greeting " + name);
        Files.writeString(path("XP_STATE_OUT"), "{\"n\":" + n + "}");
        Files.writeString(path("XP_RESULT_FILE"), "{\"hello\":\"" + name + "\",\"n\":" + n + "}");
    }
}
"#;

const C: &str = r#"
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    int n = 0, c;
    FILE *file = fopen(getenv("XP_STATE_FILE"), "r");
    while ((c = fgetc(file)) != EOF)
        if (c >= '0' && c <= '9')
            n = n * 10 + c - '0';
    fprintf(stderr, "greeting %s\n", getenv("XP_CFG_NAME"));
    file = fopen(getenv("XP_STATE_OUT"), "w");
    fprintf(file, "{\"n\":%d}", ++n);
    fclose(file);
    file = fopen(getenv("XP_RESULT_FILE"), "w");
    fprintf(file, "{\"hello\":\"%s\",\"n\":%d}", getenv("XP_CFG_NAME"), n);
    return fclose(file);
}
"#;

/// A folder of an author's, with a program in it.
fn folder(name: &str, text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let own = fs::canonicalize(folder.path()).unwrap();
    fs::write(own.join(name), text).unwrap();
    for path in [own.clone(), own.join(name)] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    (folder, own)
}

fn compile(folder: &Path, flags: &[&str]) {
    let mut command = Command::new("cc");
    command.current_dir(folder).args(["-o", "main", "main.c"]).args(flags);
    assert!(command.status().unwrap().success(), "cc {flags:?}");
}

/// Twice: the second one goes on from the first one's state.
async fn greets(language: &str, script: Script, level: Isolation) {
    let world = World::new([demo(script.isolation(level))]);
    let installation = install(&world, json!({ "name": "Ada" })).await;
    for n in 1..=2 {
        let (done, reply) = world.run(&installation, "go", json!({})).await;
        let lines = world.log(done.id, Audience::Developer).await;
        assert_eq!(
            done.status,
            ExecutionStatus::Succeeded,
            "{language} at {level}: {lines:?}"
        );
        assert_eq!(done.isolation, Some(level));
        assert_eq!(reply, json!({ "hello": "Ada", "n": n }), "{language} at {level}");
        assert!(lines.contains(&"greeting Ada".to_owned()), "{language}: {lines:?}");
        assert_eq!(world.state(&installation, "go").await, json!({ "n": n }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_languages_run_at_every_level() {
    for level in levels().await {
        for (interpreter, text) in [
            ("sh", SH),
            ("bash", BASH),
            ("perl", PERL),
            (PYTHON, PYTHON_TEXT),
            ("node", NODE),
            ("tclsh", TCL),
        ] {
            if has(interpreter) {
                greets(interpreter, Script::inline(interpreter, text), level).await;
            }
        }
        if has("awk") {
            let (_folder, own) = folder("main.awk", AWK);
            greets("awk", Script::command("awk", ["-f", "main.awk"]).dir(&own), level).await;
        }
        if has("java") {
            let (_folder, own) = folder("Main.java", JAVA);
            let script = Script::command("java", ["-XX:+UseSerialGC", "-Xmx256m", "Main.java"]).dir(&own);
            greets("java", script, level).await;
        }
        if has("cc") {
            for flags in [&["-static"] as &[&str], &[]] {
                let (_folder, own) = folder("main.c", C);
                compile(&own, flags);
                greets("c", Script::command("./main", Vec::<String>::new()).dir(&own), level).await;
            }
        }
    }
}
