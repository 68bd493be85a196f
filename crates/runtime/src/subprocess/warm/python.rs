//! What a warm interpreter is told: its arguments, and the hand-over.

use super::super::{
    binding,
    launch::{Content, MESSAGES, MESSAGES_FD, Place, Plan},
    setting::Setting,
};
use crosspoint_core::{Code, Error, Protocol, Result, Script, ScriptSource};
use std::{os::unix::ffi::OsStrExt, path::Path};

/// Waits, and becomes the script.
const WORKER: &str = include_str!("worker.py");

/// Modules that are imported ahead, at most.
const IMPORTS: usize = 64;

/// Whether a script asks for warm interpreters; an error if it is none that could have some.
pub(in super::super) fn check(script: &Script) -> Result<bool> {
    let Some(imports) = script.warm_imports() else {
        return Ok(false);
    };
    let invalid = |message: &str| Err(Error::new(Code::SetupInvalid, message));
    let (program, file) = match script.source() {
        ScriptSource::Inline { interpreter, .. } => (interpreter, None),
        ScriptSource::Command { program, args, .. } => (program, Some(args.first())),
        _ => return invalid("this runner does not know this kind of script"),
    };
    let name = Path::new(program).file_name().and_then(|name| name.to_str());
    if !name.is_some_and(|name| name.starts_with("python")) {
        return invalid("only Python is kept warm: the interpreter of the script is another one");
    }
    if file.is_some_and(|file| file.is_none_or(|file| file.starts_with('-'))) {
        return invalid("a Python script that is kept warm is a file: the first argument of its command");
    }
    if imports.len() > IMPORTS {
        return invalid("more than 64 modules are to be imported ahead");
    }
    match imports.iter().find(|name| !is_module(name)) {
        Some(name) => {
            Err(Error::new(Code::SetupInvalid, "this is not the name of a Python module").with("module", name))
        }
        None => Ok(true),
    }
}

/// Whether this can be imported, as far as its name goes.
pub(crate) fn is_module(name: &str) -> bool {
    let part = |part: &str| {
        let start = part.chars().next();
        start.is_some_and(|c| c == '_' || c.is_alphabetic()) && part.chars().all(|c| c == '_' || c.is_alphanumeric())
    };
    name.len() <= 200 && name.split('.').all(part)
}

/// An interpreter that gets ready in this place, and what is in its folder by then.
pub(super) fn plan(setting: &Setting, place: Place) -> Result<(Plan, (Place, Vec<String>))> {
    let script = &*setting.script;
    let layout = binding::beforehand(script, &setting.base, place.clone())?;
    let mut plan = setting.plan(layout, true)?;
    let speech = match script.spoken() {
        Protocol::Framed => "framed",
        _ => "plain",
    };
    let channel = if place.descriptor {
        MESSAGES_FD.to_string().into()
    } else {
        place.root.join(MESSAGES).into_os_string()
    };
    let imports = script.warm_imports().unwrap_or_default().join(",");
    let own = ["-c".into(), WORKER.into(), imports.into(), speech.into(), channel];
    plan.args.splice(0..0, own);
    let there = plan.inputs.iter().map(|input| input.name.clone()).collect();
    Ok((plan, (place, there)))
}

/// The hand-over of a run: two sizes of 8 bytes, a head with NUL between its parts, and the files.
///
/// `None` if something in it cannot be said.
pub(super) fn hand_over(plan: &Plan, root: &Path, there: &[String]) -> Option<Vec<u8>> {
    let (mut head, mut body) = (Vec::new(), Vec::new());
    let mut say = |part: &[u8]| {
        head.extend_from_slice(part);
        head.push(0);
        !part.contains(&0)
    };
    let mut sound = say(root.as_os_str().as_bytes()) && say(plan.env.len().to_string().as_bytes());
    for (name, value) in &plan.env {
        let mut variable = name.clone();
        variable.push("=");
        variable.push(value);
        sound &= say(variable.as_bytes());
    }
    for input in plan.inputs.iter().filter(|input| !there.contains(&input.name)) {
        sound &= say(input.name.as_bytes());
        sound &= say(format!("{:o}", input.mode).as_bytes());
        sound &= match &input.content {
            Content::Folder => say(b"-"),
            Content::File(content) => {
                body.extend_from_slice(content);
                say(content.len().to_string().as_bytes())
            }
        };
    }
    head.pop();
    let size = |part: &[u8]| u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes();
    let mut message = Vec::with_capacity(16 + head.len() + body.len());
    message.extend_from_slice(&size(&head));
    message.extend_from_slice(&size(&body));
    message.append(&mut head);
    message.append(&mut body);
    sound.then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_python_files_are_kept_warm() {
        let warm = |script: Script| check(&script.warm(["ssl", "urllib.request"]));
        assert!(!check(&Script::inline("node", "")).unwrap());
        for script in [
            Script::inline("python3", ""),
            Script::inline("/opt/python3.12/bin/python", ""),
            Script::command("python3", ["./run.py", "-v"]),
        ] {
            assert!(warm(script).unwrap());
        }
        for script in [
            Script::inline("node", ""),
            Script::inline("sh", ""),
            Script::command("./run.py", ["x"]),
            Script::command("python3", ["-m", "run"]),
            Script::command("python3", Vec::<String>::new()),
        ] {
            assert_eq!(
                warm(script.clone()).unwrap_err().code(),
                Code::SetupInvalid,
                "{script:?}"
            );
        }
    }

    #[test]
    fn what_is_imported_are_modules() {
        for name in ["ssl", "urllib.request", "_x1.y_2", "größe"] {
            assert!(is_module(name), "{name}");
        }
        for name in ["", ".", "a.", ".a", "a b", "a,b", "1a", "a;b", "a\0", "a-b"] {
            assert!(!is_module(name), "{name}");
        }
        let many = Script::inline("python3", "").warm(vec!["x"; IMPORTS + 1]);
        assert!(check(&many).is_err());
    }
}
