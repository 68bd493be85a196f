//! Packages, from indexes that the tests make themselves: nothing here needs a network.

use super::{
    live::run,
    site::{Site, count, folder, manifest, trusting},
};
use crate::machine;
use crosspoint_core::{Code, Isolation};
use crosspoint_runtime::artifacts::{ArtifactsConfig, AuthorPolicy, Dependencies};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Whether the machine has these programs. Without one the test is left out, unless everything is required.
fn has(programs: &[&[&str]]) -> bool {
    for program in programs {
        let (name, args) = program.split_first().unwrap();
        let works = Command::new(name)
            .args(args)
            .output()
            .is_ok_and(|output| output.status.success());
        if !works {
            assert!(!machine::required(), "{name} is missing, and CROSSPOINT_REQUIRE_ALL=1");
            eprintln!("skipped: {name} is missing");
            return false;
        }
    }
    true
}

fn python() -> bool {
    has(&[&["python3", "--version"], &["python3", "-m", "pip", "--version"]])
}

fn node() -> bool {
    has(&[&["node", "--version"], &["npm", "--version"]])
}

/// Whether anybody may execute the program that `PATH` leads to.
fn open_to_all(program: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    let open = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 1 != 0);
    found.is_some_and(|path| path.ancestors().all(open))
}

/// Runs what was published at every level that this machine can enforce.
async fn at_every_level(root: &Path, version: &str, program: &str, expected: &Value) {
    for level in machine::levels(Isolation::Process).await {
        // A confined run has another user's number, and the paths of the host.
        if level == Isolation::Confined && !open_to_all(program) {
            eprintln!("left out at {level}: {program} lies in a folder that only its owner may enter");
            continue;
        }
        let config = ArtifactsConfig::folder(root).authors(AuthorPolicy::new().isolation(level));
        let site = Site::with(config);
        let looked = site.artifacts.refresh().await.unwrap();
        assert!(looked.failed.is_empty(), "{looked:?}");
        assert_eq!(run(&site, "hello", version, "greet").await, *expected, "at {level}");
    }
}

/// A folder with wheels; each is a module that says who it is, and a program that would say that it ran.
fn wheels(at: &Path, packages: &[(&str, &str)]) {
    const MAKE: &str = r#"
import sys, zipfile
folder, name, version = sys.argv[1:]
info = f"{name}-{version}.dist-info"
with zipfile.ZipFile(f"{folder}/{name}-{version}-py3-none-any.whl", "w") as wheel:
    wheel.writestr(f"{name}/__init__.py", f"version = '{version}'\n")
    wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", "")
"#;
    for (name, version) in packages {
        let made = Command::new("python3")
            .args(["-c", MAKE])
            .arg(at)
            .args([name, version])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

fn offline(index: &Path) -> Dependencies {
    Dependencies::new()
        .variable("PIP_NO_INDEX", "1")
        .variable("PIP_FIND_LINKS", index)
}

fn config(root: &Path, dependencies: Dependencies) -> ArtifactsConfig {
    ArtifactsConfig::folder(root)
        .authors(trusting())
        .dependencies(dependencies)
}

fn of(language: &str, version: &str) -> Value {
    let program = if language == "python" { "greet.py" } else { "greet.mjs" };
    let flow = json!({ "name": "greet", "trigger": "call", "language": language, "entry": { "program": program } });
    manifest(version, json!({ "flows": [flow] }))
}

const GREET: &str = "
import json, os
import leftpad, helper
json.dump([leftpad.version, helper.WORD], open(os.environ['XP_RESULT_FILE'], 'w'))
";

fn greeting(version: &str, requirements: &str) -> tempfile::TempDir {
    folder(&[
        ("crosspoint.json", &of("python", version).to_string()),
        ("greet.py", GREET),
        ("helper.py", "WORD = 'mine'\n"),
        ("requirements.txt", requirements),
    ])
}

#[tokio::test]
async fn a_python_script_finds_its_packages_which_are_installed_once() {
    if !python() {
        return;
    }
    let (root, index) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    wheels(index.path(), &[("leftpad", "1.0"), ("leftpad", "2.0")]);
    let site = Site::with(config(root.path(), offline(index.path())));
    let first = site.publish(greeting("1.0.0", "leftpad==1.0\n").path()).await.unwrap();
    assert_eq!(run(&site, "hello", "1.0.0", "greet").await, json!(["1.0", "mine"]));
    assert_eq!((first.layers.len(), first.warnings.len()), (1, 0), "{first:?}");
    // The index is gone, and what was made of the same file is there.
    std::fs::remove_file(index.path().join("leftpad-1.0-py3-none-any.whl")).unwrap();
    let second = site.publish(greeting("1.0.1", "leftpad==1.0\n").path()).await.unwrap();
    assert_eq!(first.layers, second.layers);
    assert_eq!(count(root.path(), "content"), 3, "two artifacts and one layer");
    let third = site.publish(greeting("1.1.0", "leftpad==2.0\n").path()).await.unwrap();
    assert_ne!(first.layers, third.layers);
    assert_eq!(run(&site, "hello", "1.1.0", "greet").await, json!(["2.0", "mine"]));
    assert_eq!(run(&site, "hello", "1.0.0", "greet").await, json!(["1.0", "mine"]));
    at_every_level(root.path(), "1.0.0", "python3", &json!(["1.0", "mine"])).await;
    // Nothing was written beside the files, so that a process that starts now finds them as they were.
    let other = Site::over(root.path());
    assert_eq!(other.artifacts.refresh().await.unwrap().new.len(), 3);
}

#[tokio::test]
async fn what_pip_says_is_told_and_nothing_is_published() {
    if !python() {
        return;
    }
    let (root, index) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hidden = index.path().join("hidden-canary");
    std::fs::create_dir(&hidden).unwrap();
    let site = Site::with(config(root.path(), offline(&hidden)));
    let error = site.refusal(greeting("1.0.0", "leftpad==1.0\n").path()).await;
    assert_eq!(error.code(), Code::DependenciesFailed);
    assert!(error.message().contains("leftpad"), "{error:?}");
    assert!(
        !error.message().contains("hidden-canary"),
        "what the operators have set is not told: {error:?}"
    );
    assert!(site.releases().await.is_empty());
    assert_eq!((count(root.path(), "content"), count(root.path(), "staging")), (0, 0));
}

/// A source package runs code of its own when it is installed.
#[tokio::test]
async fn no_code_runs_while_packages_are_installed() {
    if !python() {
        return;
    }
    let (root, index) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ran = index.path().join("ran");
    let setup = format!("open({ran:?}, 'w')\nfrom setuptools import setup\nsetup(name='leftpad', version='1.0')\n");
    let source = folder(&[
        ("leftpad-1.0/setup.py", &setup),
        ("leftpad-1.0/PKG-INFO", "Name: leftpad\nVersion: 1.0\n"),
    ]);
    let packed = Command::new("tar")
        .arg("-czf")
        .arg(index.path().join("leftpad-1.0.tar.gz"))
        .arg("-C")
        .args([source.path(), Path::new("leftpad-1.0")])
        .status();
    assert!(packed.unwrap().success());
    let site = Site::with(config(root.path(), offline(index.path())));
    let error = site.refusal(greeting("1.0.0", "leftpad==1.0\n").path()).await;
    assert_eq!(error.code(), Code::DependenciesFailed);
    let error = site
        .refusal(greeting("1.0.0", "--no-binary=:all:\nleftpad==1.0\n").path())
        .await;
    assert_eq!(error.code(), Code::ArtifactInvalid);
    assert!(!ran.exists());
}

#[tokio::test]
async fn a_package_manager_that_does_not_end_is_stopped() {
    if !python() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    // Takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let index = format!("http://{}/simple", silent.local_addr().unwrap());
    let dependencies = Dependencies::new()
        .variable("PIP_INDEX_URL", index)
        .time_limit(Duration::from_secs(8));
    let site = Site::with(config(root.path(), dependencies));
    let error = site.refusal(greeting("1.0.0", "leftpad==1.0\n").path()).await;
    assert_eq!(error.code(), Code::DependenciesFailed);
    assert!(error.message().contains("had not ended"), "{error:?}");
    assert_eq!(count(root.path(), "staging"), 0);
}

/// As much of a registry as npm asks for. Counts the tarballs that it gave away.
struct Npm {
    url: String,
    given: Arc<AtomicUsize>,
}

impl Npm {
    fn start(packages: HashMap<String, (Value, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let given = Arc::new(AtomicUsize::new(0));
        let (base, counter) = (url.clone(), Arc::clone(&given));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|count| count > 2) {}
                let path = head
                    .split(' ')
                    .nth(1)
                    .unwrap_or_default()
                    .trim_start_matches('/')
                    .to_owned();
                let name = path.split('/').next().unwrap_or_default();
                let body = match packages.get(name) {
                    Some((_, tarball)) if path.ends_with(".tgz") => {
                        counter.fetch_add(1, Ordering::SeqCst);
                        tarball.clone()
                    }
                    Some((version, _)) => {
                        let mut version = version.clone();
                        version["dist"]["tarball"] = json!(format!("{base}{name}/-/{name}-1.0.0.tgz"));
                        json!({ "name": name, "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } })
                            .to_string()
                            .into_bytes()
                    }
                    None => Vec::new(),
                };
                let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let stream = reader.get_mut();
                // Whoever asked may be gone.
                stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&body))
                    .ok();
            }
        });
        Self { url, given }
    }
}

/// A package as npm packs it, with its hash.
fn package(name: &str, manifest: Value, index: &str) -> (String, (Value, Vec<u8>), String) {
    let source = folder(&[
        ("package/package.json", &manifest.to_string()),
        ("package/index.js", index),
        ("package/ran.js", "require('fs').writeFileSync('ran', '')"),
    ]);
    let archive = source.path().join("a.tgz");
    let packed = Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .args([source.path(), Path::new("package")])
        .status();
    assert!(packed.unwrap().success());
    let hash = "process.stdout.write('sha512-'+require('crypto').createHash('sha512').update(require('fs').readFileSync(process.argv[1])).digest('base64'))";
    let integrity = Command::new("node").args(["-e", hash]).arg(&archive).output().unwrap();
    let integrity = String::from_utf8(integrity.stdout).unwrap();
    let mut version = manifest;
    version["dist"] = json!({ "integrity": integrity });
    (name.to_owned(), (version, std::fs::read(&archive).unwrap()), integrity)
}

/// A registry, and an artifact of a version that needs what is in it.
fn modern() -> (Npm, impl Fn(&str) -> tempfile::TempDir) {
    // `modern` is imported and needs `classic`, which is required; both would run code when they are installed.
    let scripts = json!({ "preinstall": "node ran.js", "install": "node ran.js", "postinstall": "node ran.js" });
    let classic = json!({ "name": "classic", "version": "1.0.0", "main": "index.js", "scripts": scripts, "bin": { "classic": "ran.js" } });
    let classic = package("classic", classic, "module.exports = 'classic';");
    let modern = json!({ "name": "modern", "version": "1.0.0", "type": "module", "main": "index.js", "dependencies": { "classic": "1.0.0" } });
    let modern = package(
        "modern",
        modern,
        "import classic from 'classic'; export default 'modern ' + classic;",
    );
    let lock = json!({
        "name": "hello", "lockfileVersion": 3, "requires": true,
        "packages": {
            "": { "dependencies": { "modern": "1.0.0" } },
            "node_modules/classic": { "version": "1.0.0", "integrity": classic.2, "hasInstallScript": true },
            "node_modules/modern": { "version": "1.0.0", "integrity": modern.2, "dependencies": { "classic": "1.0.0" } }
        }
    });
    let npm = Npm::start(HashMap::from([(classic.0, classic.1), (modern.0, modern.1)]));
    let script = "import fs from 'fs'; import { createRequire } from 'module'; import modern from 'modern'; import { word } from './lib/word.mjs';\n\
        const classic = createRequire(import.meta.url)('classic');\n\
        fs.writeFileSync(process.env.XP_RESULT_FILE, JSON.stringify([modern, classic, word]));";
    let files = move |version: &str| {
        folder(&[
            ("crosspoint.json", &of("node", version).to_string()),
            ("package.json", r#"{ "dependencies": { "modern": "1.0.0" } }"#),
            ("package-lock.json", &lock.to_string()),
            // Settings of the author's do not count.
            (".npmrc", "registry=http://127.0.0.1:1/\nignore-scripts=false\n"),
            ("greet.mjs", script),
            ("lib/word.mjs", "export const word = 'mine';"),
        ])
    };
    (npm, files)
}

#[tokio::test]
async fn a_node_script_finds_its_packages_by_import_and_by_require() {
    if !node() {
        return;
    }
    let (npm, files) = modern();
    let root = tempfile::tempdir().unwrap();
    let site = Site::with(config(
        root.path(),
        Dependencies::new().variable("npm_config_registry", &npm.url),
    ));
    let first = site.publish(files("1.0.0").path()).await.unwrap();
    assert_eq!(
        run(&site, "hello", "1.0.0", "greet").await,
        json!(["modern classic", "classic", "mine"])
    );
    assert_eq!(npm.given.load(Ordering::SeqCst), 2);
    let second = site.publish(files("1.0.1").path()).await.unwrap();
    assert_eq!(
        (npm.given.load(Ordering::SeqCst), first.layers == second.layers),
        (2, true)
    );
    assert_eq!(
        run(&site, "hello", "1.0.1", "greet").await,
        json!(["modern classic", "classic", "mine"])
    );
    at_every_level(
        root.path(),
        "1.0.0",
        "node",
        &json!(["modern classic", "classic", "mine"]),
    )
    .await;
    let layer = root
        .path()
        .join("content")
        .join(first.layers[0].to_string())
        .join("node_modules");
    assert!(
        !layer.join("classic/ran").exists() && !layer.join(".bin").exists(),
        "no code ran"
    );
    // What nobody needs any more goes with its folders.
    for version in ["1.0.0", "1.0.1"] {
        site.artifacts.withdraw("hello", version).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    site.artifacts.collect(&[], Duration::ZERO).await.unwrap();
    assert_eq!(
        (
            count(root.path(), "content"),
            count(root.path(), "assemblies"),
            count(root.path(), "layers")
        ),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn a_wrong_hash_is_refused_by_npm() {
    if !node() {
        return;
    }
    let classic = package(
        "classic",
        json!({ "name": "classic", "version": "1.0.0" }),
        "module.exports = 1;",
    );
    let npm = Npm::start(HashMap::from([(classic.0, classic.1)]));
    let integrity = format!("sha512-{}==", "A".repeat(86));
    let lock = json!({
        "lockfileVersion": 3,
        "packages": { "": { "dependencies": { "classic": "1.0.0" } }, "node_modules/classic": { "version": "1.0.0", "integrity": integrity } }
    });
    let source = folder(&[
        ("crosspoint.json", &of("node", "1.0.0").to_string()),
        ("package.json", r#"{ "dependencies": { "classic": "1.0.0" } }"#),
        ("package-lock.json", &lock.to_string()),
        ("greet.mjs", ""),
    ]);
    let root = tempfile::tempdir().unwrap();
    let site = Site::with(config(
        root.path(),
        Dependencies::new().variable("npm_config_registry", &npm.url),
    ));
    let error = site.refusal(source.path()).await;
    assert_eq!(error.code(), Code::DependenciesFailed);
    assert!(error.message().contains("EINTEGRITY"), "{error:?}");
}
