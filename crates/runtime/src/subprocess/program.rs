//! Where a program is.

use crosspoint_core::{Code, Error, Result};
use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// The file of a program: a path as it is (relative to `dir`), a name looked up in `PATH`.
///
/// It is looked up here and not by the standard library, which would have to fork the host to do it with another `PATH`.
pub(super) fn find(program: &str, dir: Option<&Path>, env: &BTreeMap<OsString, OsString>) -> Result<PathBuf> {
    let missing = || {
        let message = format!("the program `{program}` is not there or not executable");
        Error::new(Code::ScriptNotStarted, message).with("program", program)
    };
    if program.contains('/') {
        let path = dir.map_or_else(|| PathBuf::from(program), |dir| dir.join(program));
        let path = std::path::absolute(path).map_err(|e| missing().caused_by(e))?;
        return if executable(&path) { Ok(path) } else { Err(missing()) };
    }
    let path = env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|candidate| executable(candidate))
        .ok_or_else(missing)
}

fn executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_the_scripts_own_path() {
        let env = BTreeMap::from([(
            OsString::from("PATH"),
            OsString::from("relative:/nowhere:/usr/bin:/bin"),
        )]);
        assert!(find("sh", None, &env).unwrap().is_absolute());
        for program in ["surely-not-there", "/etc/passwd", "./sh", "/"] {
            assert_eq!(
                find(program, None, &env).unwrap_err().code(),
                Code::ScriptNotStarted,
                "{program}"
            );
        }
        assert!(find("./sh", Some(Path::new("/bin")), &env).is_ok());
    }
}
