//! `package-lock.json`, by npm, and where Node finds what was installed.

use super::{Dependencies, failed, tool};
use crate::artifacts::{disk, invalid, listing};
use crosspoint_core::{ContentDigest, Problem, Result};
use serde_json::Value;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

pub(super) const FILE: &str = "package-lock.json";
const PACKAGES: &str = "node_modules";

/// Whether the file names any package; refuses what does not come from a registry.
pub(super) fn check(lock: &[u8]) -> Result<bool> {
    let lock: Value = serde_json::from_slice(lock)
        .map_err(|e| invalid(format!("package-lock.json is not JSON: {e}")).caused_by(e))?;
    if lock
        .get("lockfileVersion")
        .and_then(Value::as_u64)
        .is_none_or(|version| version < 2)
    {
        return Err(invalid(
            "package-lock.json is of an old npm: make it anew with npm 7 or later",
        ));
    }
    let mut problems = Vec::new();
    let mut any = false;
    for (path, package) in lock.get("packages").and_then(Value::as_object).into_iter().flatten() {
        if path.is_empty() || package.get("dev") == Some(&Value::Bool(true)) {
            continue;
        }
        any = true;
        let inside = path.starts_with("node_modules/") && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let why = match inside {
            true => unfit(package),
            false => Some("it is not below node_modules: only packages of the registry are taken"),
        };
        if let Some(why) = why {
            let pointer = path.replace('~', "~0").replace('/', "~1");
            problems.push(Problem::new(
                "",
                format!("package-lock.json, /packages/{pointer}: {why}"),
            ));
        }
    }
    match problems.is_empty() {
        true => Ok(any),
        false => Err(invalid("package-lock.json has packages that are not taken").with_problems(problems)),
    }
}

fn unfit(package: &Value) -> Option<&'static str> {
    if package.get("link").is_some() {
        return Some("it is a link to a folder: only packages of the registry are taken");
    }
    if package.get("inBundle") == Some(&Value::Bool(true)) {
        return None;
    }
    let integrity = package.get("integrity").and_then(Value::as_str);
    if integrity.is_none_or(|text| !text.starts_with("sha512-")) {
        return Some("it has no sha512 `integrity`: only packages of the registry are taken");
    }
    // Left out, the package comes from the operators' registry. npm puts theirs in place of the public one.
    let resolved = package.get("resolved").and_then(Value::as_str);
    match resolved.is_none_or(|url| url.starts_with("https://registry.npmjs.org/")) {
        true => None,
        false => Some(
            "it comes from an address of its own: make the lock file with `npm install --omit-lockfile-registry-resolved`, \
             and the operators' registry is asked",
        ),
    }
}

/// The version of the interpreter, with all that decides which packages it takes.
pub(super) async fn interpreter(work: &Path, dependencies: &Dependencies) -> Result<String> {
    let said = tool::run("node", &["--version".into()], &[], work, dependencies).await?;
    Ok(said.trim().to_owned())
}

/// Installs below `work`, from copies of the two files alone: settings in the author's folder do not count.
pub(super) async fn install(work: &Path, folder: &Path, dependencies: &Dependencies) -> Result<PathBuf> {
    let project = work.join("project");
    let copied = fs::create_dir_all(&project).and_then(|()| {
        fs::copy(folder.join(FILE), project.join(FILE))?;
        fs::copy(folder.join("package.json"), project.join("package.json"))
    });
    copied.map_err(|e| failed("npm needs package.json beside package-lock.json").caused_by(e))?;
    let cache = work.join("npm-cache");
    let mut args: Vec<OsString> = [
        "ci",
        "--ignore-scripts",
        "--omit=dev",
        "--bin-links=false",
        "--install-links=false",
    ]
    .map(OsString::from)
    .to_vec();
    args.extend(
        [
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--loglevel=error",
            "--prefix",
        ]
        .map(OsString::from),
    );
    args.extend([project.clone().into(), "--cache".into(), cache.into()]);
    let own = [
        ("npm_config_userconfig", "/dev/null"),
        ("npm_config_globalconfig", "/dev/null/none"),
    ];
    tool::run("npm", &args, &own, work, dependencies).await?;
    let installed = work.join("layer");
    let moved = fs::create_dir_all(&installed).and_then(|()| {
        let packages = project.join(PACKAGES);
        drop(fs::remove_file(packages.join(".package-lock.json")));
        match packages.exists() {
            true => fs::rename(packages, installed.join(PACKAGES)),
            false => Ok(()),
        }
    });
    moved.map_err(|e| failed("what npm installed cannot be moved").caused_by(e))?;
    Ok(installed)
}

/// A folder for an artifact and its packages, as Node wants to find them: modules are looked for in `node_modules` of the
/// folders above the one that asks, and variables such as `NODE_PATH` do not count for `import`. The files are those that
/// are kept, under a second name.
///
/// ```text
/// <assembly>/app/            the artifact
/// <assembly>/node_modules/   the layer
/// ```
pub(in crate::artifacts) fn assemble(
    assemblies: &Path,
    staging: &Path,
    (artifact, content): (&ContentDigest, &Path),
    (layer, packages): (&ContentDigest, &Path),
) -> Result<PathBuf> {
    let place = assemblies.join(assembly(artifact, layer));
    let sound = |place: &Path| {
        listing::digest(&place.join(APP)).is_ok_and(|found| found == *artifact)
            && listing::digest_under(&place.join(PACKAGES), PACKAGES).is_ok_and(|found| found == *layer)
    };
    if sound(&place) {
        return Ok(place);
    }
    let failed = |e: std::io::Error| disk::failed("a folder for a program and its packages cannot be made", &place, e);
    let made = tempfile::Builder::new()
        .prefix("assembly-")
        .tempdir_in(staging)
        .map_err(failed)?;
    for (from, below) in [(content.to_owned(), APP), (packages.join(PACKAGES), PACKAGES)] {
        let to = made.path().join(below);
        fs::create_dir(&to).map_err(failed)?;
        for listed in listing::list(&from)? {
            let (from, to) = (from.join(&listed.path), to.join(&listed.path));
            to.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
            // On another file system there is no second name for a file.
            fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(drop))
                .map_err(failed)?;
        }
    }
    if place.exists() {
        disk::remove(&place)?;
    }
    // What another process makes at the same time is the same, so that either may be first.
    match fs::rename(made.path(), &place) {
        Err(error) if !sound(&place) => Err(failed(error)),
        _ => disk::protect(&place).map(|()| place),
    }
}

/// The artifact in its assembly.
pub(in crate::artifacts) const APP: &str = "app";

/// The name of an assembly.
pub(in crate::artifacts) fn assembly(artifact: &ContentDigest, layer: &ContentDigest) -> String {
    listing::digest_of(&[b"assembly 2", artifact.as_bytes(), layer.as_bytes()]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosspoint_core::Code;

    #[test]
    fn packages_come_from_a_registry_and_nowhere_else() {
        let package = |fields: Value| {
            let lock = serde_json::json!({ "lockfileVersion": 3, "packages": { "": {}, "node_modules/a": fields } });
            check(lock.to_string().as_bytes())
        };
        let integrity = "sha512-AAAA";
        for good in [
            serde_json::json!({ "version": "1.0.0", "integrity": integrity }),
            serde_json::json!({ "resolved": "https://registry.npmjs.org/a/-/a-1.0.0.tgz", "integrity": integrity }),
            serde_json::json!({ "inBundle": true }),
        ] {
            assert!(package(good).unwrap());
        }
        assert!(
            !package(serde_json::json!({ "dev": true })).unwrap(),
            "nothing that is installed"
        );
        for bad in [
            serde_json::json!({ "resolved": "git+ssh://git@github.com/a/b.git", "integrity": integrity }),
            serde_json::json!({ "resolved": "http://169.254.169.254/a.tgz", "integrity": integrity }),
            serde_json::json!({ "resolved": "file:../a", "integrity": integrity }),
            serde_json::json!({ "resolved": "../a", "link": true }),
            serde_json::json!({ "version": "1.0.0" }),
        ] {
            assert_eq!(package(bad.clone()).unwrap_err().code(), Code::ArtifactInvalid, "{bad}");
        }
        assert!(check(br#"{ "lockfileVersion": 1 }"#).is_err());
        for path in ["node_modules/../../a", "../a", "/a", "packages/a"] {
            let fields = serde_json::json!({ "version": "1.0.0", "integrity": integrity });
            let lock = serde_json::json!({ "lockfileVersion": 3, "packages": { path: fields } });
            assert!(check(lock.to_string().as_bytes()).is_err(), "{path}");
        }
    }
}
