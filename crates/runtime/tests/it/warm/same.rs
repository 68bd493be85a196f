//! A run by an interpreter that waited has the outcome of one that was started for it.

use super::{Bed, KEEP, grounds, python};
use crate::{
    framed::Shelf,
    scripts::{succeeded, texts},
};
use crosspoint_core::{Isolation, Protocol, RunEnd, RunOutcome, RunSpec, Script};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use tokio::task::JoinSet;

/// Everything that a script may look at in its first moment.
const WORLD: &str = r#"
import json, os, signal, sys, threading
folder = os.path.dirname(os.environ["HOME"])
seen = {
    "names": list(globals()), "name": __name__, "file": __file__, "spec": __spec__, "package": __package__,
    "loader": type(__loader__).__name__, "doc": __doc__, "cached": __cached__,
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "executable": sys.executable,
    "flags": str(sys.flags), "encoding": [sys.stdin.encoding, sys.stdout.encoding, sys.stderr.errors],
    "main": sys.modules["__main__"].__dict__ is globals(), "builtins": type(__builtins__).__name__,
    "cwd": os.getcwd(), "env": dict(os.environ), "here": os.listdir("."),
    "stdin": sys.stdin.read(), "descriptors": sorted(n for n in os.listdir("/proc/self/fd") if int(n) < 200),
    "folder": {name: oct(os.stat(os.path.join(folder, name)).st_mode) for name in sorted(os.listdir(folder))},
    "owner": os.stat(os.environ["XP_CONFIG_FILE"]).st_uid == os.getuid(),
    "state": json.load(open(os.environ["XP_STATE_FILE"])), "config": json.load(open(os.environ["XP_CONFIG_FILE"])),
    "input": json.load(open(os.environ["XP_INPUT_FILE"])), "triggers": json.load(open(os.environ["XP_TRIGGERS_FILE"])),
    "secret": {name: oct(os.stat(os.path.join(os.environ["XP_SECRETS_DIR"], name)).st_mode) for name in os.listdir(os.environ["XP_SECRETS_DIR"])},
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)],
    "threads": [thread.name for thread in threading.enumerate()], "umask": os.umask(0o22), "recursion": sys.getrecursionlimit(),
}
del seen["triggers"][0]["time"]
json.dump({"n": 1}, open(os.environ["XP_STATE_OUT"], "w"))
json.dump(seen, open(os.environ["XP_RESULT_FILE"], "w"))
print(open(os.path.join(os.environ["XP_SECRETS_DIR"], "token")).read())
"#;

/// Ways to end, and what is still done then.
const ENDS: &[&str] = &[
    "pass",
    "import sys; sys.exit()",
    "import sys; sys.exit(0)",
    "import sys; sys.exit(65)",
    "raise SystemExit(75)",
    "exit(77)",
    "import sys; sys.exit(78)",
    "import sys; sys.exit(-1)",
    "import sys; sys.exit(256 + 3)",
    "import sys; sys.exit(True)",
    "import sys; sys.exit('why it ends')",
    "raise SystemExit(['a', 'list'])",
    "import os; os._exit(3)",
    "import os; os.abort()",
    "1 / 0",
    "def deep(n):\n    return deep(n - 1) if n else {}['missing']\ndeep(3)",
    "def broken(:\n    pass",
    "  indented = 1",
    "x = '\\ud800'; print(x)",
    "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('chained') from e",
    "raise KeyboardInterrupt",
    "class Own(BaseException): pass\nraise Own('words')",
    "import sys\nsys.excepthook = lambda *about: print('hooked', about[0].__name__)\nraise ValueError",
    "import sys\nsys.excepthook = lambda *about: 1 / 0\nraise ValueError",
    "assert False, 'because'",
    "print('no end of line', end='')",
    "import sys\nprint('out'); sys.stdout.flush(); print('err', file=sys.stderr)\nsys.stdout.write('rest')",
    "print('x' * 100_000)",
    "import atexit, os\natexit.register(print, 'first'); atexit.register(print, 'second')\natexit.register(lambda: 1 / 0)",
    "import os\nout = open(os.environ['XP_RESULT_FILE'], 'w')\nout.write('{\"left\": \"open\"}')",
    "import os\n_out = open(os.environ['XP_RESULT_FILE'], 'wb', 1 << 20)\n_out.write(b'[1]')\nloop = []\nloop.append((loop, _out))",
    "import os, sys\ndef main():\n    out = open(os.environ['XP_RESULT_FILE'], 'w')\n    out.write('[2]')\n    sys.exit(0)\nmain()",
    "import os, threading, time\ndef late():\n    time.sleep(0.05)\n    open(os.environ['XP_RESULT_FILE'], 'w').write('\"late\"')\n\
     threading.Thread(target=late).start()",
    "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\nprint('main ends')",
    "import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
    "class Last:\n    def __del__(self): print('last words')\nlast = Last()",
    "import logging\nlogging.basicConfig()\nlogging.warning('told')",
    "import warnings\nwarnings.warn('careful')",
    "import os, sys\nif os.fork() == 0:\n    print('child'); sys.exit(5)\nprint(os.waitstatus_to_exitcode(os.wait()[1]))",
    "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(1 + 1)'], capture_output=True).stdout)",
    "import pickle\nclass Kept: pass\nprint(type(pickle.loads(pickle.dumps(Kept()))) is Kept)",
    "import inspect\ndef own():\n    return 1\nprint(inspect.getsource(own))",
    "import __main__\nprint(__main__.__file__ == __file__)",
    "from __future__ import annotations\nx: int = 'a'\nprint(__annotations__)",
    "input()",
    "import sys; sys.stdout.close()",
    "import sys; sys.stdout = None; print('nowhere')",
    // At `process` they are set beside the start, which a busy machine may draw out.
    "import resource, time\nfor _ in range(500):\n    \
     if resource.getrlimit(resource.RLIMIT_DATA)[0] != -1: break\n    \
     time.sleep(0.01)\n\
     print([resource.getrlimit(r) for r in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)])",
    "import os, urllib.request, urllib.error\nurl = os.environ.get('XP_BROKER_URL')\ntry:\n    \
     url and 'SOCKET' not in str(os.environ) and urllib.request.urlopen(url + '/c/none/x')\n\
     except urllib.error.HTTPError as e:\n    print(e.code, e.headers['XP-Error'])",
    "import os\nopen(os.environ['XP_RESULT_FILE'], 'w').write('not json')",
];

/// An outcome in words, without what differs from run to run.
fn told(outcome: &RunOutcome) -> Value {
    let (result, error) = match &outcome.end {
        RunEnd::Succeeded(value) => (value.clone(), Value::Null),
        RunEnd::Failed(error) => {
            let text = format!("{:?} {:?} {}", error.code(), error.retry(), error.message());
            (Value::Null, text.into())
        }
        other => (Value::Null, format!("{other:?}").into()),
    };
    // The two outputs are read side by side.
    let mut log = texts(outcome);
    log.sort_unstable();
    let text = json!({
        "result": result, "error": error, "state": outcome.state, "isolation": outcome.isolation.to_string(),
        "log": log, "dropped": outcome.log_dropped,
    });
    // Addresses of objects, and at the lower levels the private folder's random name.
    let mut text = text.to_string();
    for (mark, length) in [("/crosspoint-run-", 6), ("0x7", 11)] {
        let mut at = 0;
        while let Some(found) = text.get(at..).and_then(|rest| rest.find(mark)) {
            at += found + mark.len();
            text.replace_range(at..(at + length).min(text.len()), "");
        }
    }
    serde_json::from_str(&text).unwrap()
}

fn facts(spec: &mut RunSpec) {
    spec.config = json!({ "startDate": "2026-01-01", "text": "ä\u{1f980}", "list": [1] });
    spec.input = json!({ "n": 1 });
    spec.state.value = json!({ "cursor": "a" });
    let secret = crosspoint_core::SecretString::from("canary-of-warm");
    spec.secrets = Arc::new(BTreeMap::from([("token".to_owned(), secret)]));
}

/// Runs it cold by a runner that keeps nothing warm, and warm.
async fn both(script: Script, imports: &[&str]) -> (RunOutcome, RunOutcome) {
    let bed = Bed::new(KEEP);
    let cold = bed.run("acme", &Arc::new(script.clone()), facts).await;
    let script = Arc::new(script.warm(imports.to_vec()));
    bed.warm_up("acme", &script, facts).await;
    (cold, bed.warmly("acme", &script, facts).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_sees_the_same_world() {
    for level in grounds().await {
        let script = python(level, WORLD).needs_secrets().env("EXTRA", "yes");
        let (cold, warm) = both(script, &["json", "signal", "threading"]).await;
        succeeded(&cold);
        assert_eq!(texts(&warm), ["[secret]"]);
        assert_eq!(told(&cold), told(&warm), "{level}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_of_a_folder_sees_the_same_world() {
    let folder = tempfile::tempdir().unwrap();
    let own = std::fs::canonicalize(folder.path()).unwrap();
    std::fs::create_dir(own.join("below")).unwrap();
    std::fs::write(own.join("below/run.py"), format!("import beside\n{WORLD}")).unwrap();
    std::fs::write(own.join("below/beside.py"), "print('imported')").unwrap();
    std::os::unix::fs::symlink("below/run.py", own.join("link.py")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    for path in [
        own.clone(),
        own.join("below"),
        own.join("below/run.py"),
        own.join("below/beside.py"),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::clone(&mode)).unwrap();
    }
    for level in grounds().await {
        for (file, imports) in [
            ("./below/run.py", ["json", "beside"]),
            ("link.py", ["ssl", "not_there"]),
        ] {
            let script = Script::command(super::PYTHON, [file, "-x", "a b"])
                .dir(&own)
                .isolation(level);
            let script = script.needs_secrets().env("PYTHONDONTWRITEBYTECODE", "1");
            let (cold, warm) = both(script, &imports).await;
            succeeded(&cold);
            // What a module prints while it is imported is the run's, whenever that was.
            assert_eq!(texts(&warm), ["imported", "[secret]"]);
            assert_eq!(told(&cold), told(&warm), "{level} {file}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_ends_in_the_same_way() {
    for level in grounds().await {
        let mut waiting = ENDS.iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < 4
                && let Some(text) = waiting.next()
            {
                running.spawn(async move { (*text, both(python(level, text), &["json"]).await) });
            }
            let Some(done) = running.join_next().await else { break };
            let (text, (cold, warm)) = done.unwrap();
            assert_eq!(told(&cold), told(&warm), "{level}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_framed_binding_is_the_same() {
    let text = r#"
import json, os, sys
out = open(int(os.environ["XP_OUT_FD"]), "w") if "XP_OUT_FD" in os.environ else open(os.environ["XP_OUT_PATH"], "w")
def say(**message):
    print(json.dumps(message), file=out, flush=True)
start = json.loads(sys.stdin.readline())
say(type="hello", v=1, sdk="test")
say(type="state", seq=1, value={"page": start["config"]["text"]})
ack = json.loads(sys.stdin.readline())
say(type="log", message="acked %s" % ack["seq"])
say(type="result", value=[start["state"]["value"], start["secrets"]["token"] == "canary-of-warm"])
"#;
    for level in grounds().await {
        let script = python(level, text).protocol(Protocol::Framed).needs_secrets();
        let bed = Bed::new(KEEP);
        let script = Arc::new(script.warm(["json"]));
        let with = |spec: &mut RunSpec| {
            facts(spec);
            spec.checkpoint = Some(Arc::new(Shelf::default()));
        };
        let cold = bed.warm_up("acme", &script, with).await;
        let warm = bed.warmly("acme", &script, with).await;
        assert_eq!(succeeded(&warm), &json!([{ "cursor": "a" }, true]), "{level}");
        assert_eq!(texts(&warm), ["acked 1"]);
        assert_eq!(told(&cold), told(&warm), "{level}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_binding_is_the_same() {
    let text = "import os, urllib.request\n\
                def call(path, data=None):\n    \
                    token = {'authorization': 'Bearer ' + os.environ['XP_HTTP_TOKEN']}\n    \
                    request = urllib.request.Request(os.environ['XP_HTTP_URL'] + path, data, token)\n    \
                    return urllib.request.urlopen(request).read()\n\
                assert b'\"start\"' in call('/messages?after=0')\n\
                call('/messages', b'{\"type\":\"result\",\"value\":7}')\n";
    for level in grounds().await.into_iter().filter(|level| *level == Isolation::Process) {
        let (cold, warm) = both(python(level, text).protocol(Protocol::Http), &["urllib.request"]).await;
        assert_eq!((succeeded(&cold), succeeded(&warm)), (&json!(7), &json!(7)));
    }
}
