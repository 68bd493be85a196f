//! What of the host's files a run can read: the system's programs and libraries, never a home folder.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

/// Folders of the system that are shown whole, or the links that stand in their places.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What of `/etc` programs need: the linker's cache, certificates, time zone, alternatives. Nothing that holds secrets.
const CONFIGURATION: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted",
    "/etc/crypto-policies",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/mime.types",
    "/etc/protocols",
    "/etc/services",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/magic",
    "/etc/perl",
    "/etc/fonts",
];

/// Names of folders in which version managers keep whole installations; they are shown whole also in a home folder.
const MANAGERS: &[&str] = &[
    ".pyenv",
    ".rbenv",
    ".nodenv",
    ".goenv",
    ".jenv",
    ".phpenv",
    ".asdf",
    ".nvm",
    ".volta",
    ".sdkman",
    ".bun",
    ".deno",
    ".fnm",
    "mise",
    "miniconda3",
    "anaconda3",
    "miniforge3",
    "mambaforge",
];

/// What a sandboxed run has for itself.
const OWN: &[&str] = &["/tmp", "/var/tmp", "/dev", "/proc", "/w"];

/// What is shown, at the same paths as on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Visible {
    /// Folders and files; none lies below another.
    pub(super) trees: BTreeSet<PathBuf>,
    /// Links: where, and what they point to.
    pub(super) links: BTreeSet<(PathBuf, PathBuf)>,
}

impl Visible {
    /// The system's folders and `extra` ones; if nobody chose any, those that the programs of `PATH` live in.
    pub(super) fn of_host(extra: Option<&[PathBuf]>) -> Self {
        let mut visible = Self::default();
        for path in SYSTEM.iter().chain(CONFIGURATION) {
            visible.show(Path::new(path));
        }
        // Java's configuration lies in /etc, by version.
        for entry in fs::read_dir("/etc").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("java-") {
                visible.show(&entry.path());
            }
        }
        match extra {
            Some(extra) => extra.iter().for_each(|path| visible.show(path)),
            None => {
                let path = env::var_os("PATH").unwrap_or_default();
                let home = env::home_dir();
                env::split_paths(&path).for_each(|folder| visible.programs(&folder, home.as_deref()));
            }
        }
        visible
    }

    fn show(&mut self, path: &Path) {
        let Ok(found) = fs::symlink_metadata(path) else { return };
        if found.is_symlink() {
            if let Ok(target) = fs::read_link(path)
                && !self.covers(path)
            {
                self.links.insert((path.to_owned(), target));
            }
        } else if !self.covers(path) {
            self.trees.retain(|tree| !tree.starts_with(path));
            self.links.retain(|(at, _)| !at.starts_with(path));
            self.trees.insert(path.to_owned());
        }
    }

    /// What of it a sandboxed run can be shown.
    pub(super) fn beside_own(mut self) -> Self {
        let free = |path: &Path| {
            let own = OWN.iter().find(|own| path.starts_with(own));
            if let Some(own) = own {
                tracing::warn!(path = %path.display(), own, "sandboxed runs have a folder of their own there: this one is not shown");
            }
            own.is_none()
        };
        self.trees.retain(|tree| free(tree));
        self.links.retain(|(at, _)| free(at));
        self
    }

    pub(super) fn covers(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.trees.contains(above))
    }

    /// Shows the folder of `PATH`, and those that its links lead to.
    fn programs(&mut self, folder: &Path, home: Option<&Path>) {
        if !folder.is_absolute() {
            return;
        }
        let Ok(real) = folder.canonicalize() else { return };
        if !self.covers(&real) {
            self.installation(&real, home);
        }
        if real != folder && !self.covers(folder) {
            self.installation(folder, home);
        }
        for entry in fs::read_dir(&real).into_iter().flatten().flatten() {
            let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if linked
                && let Ok(target) = entry.path().canonicalize()
                && !self.covers(&target)
                && let Some(folder) = target.parent()
            {
                self.installation(folder, home);
            }
        }
    }

    /// Shows what belongs to a folder of programs: the whole installation where it is sure to be one, else the folder
    /// and the libraries beside it.
    fn installation(&mut self, folder: &Path, home: Option<&Path>) {
        if fs::read_dir(folder).is_err() {
            return;
        }
        if folder.starts_with("/nix/store") {
            return self.show(Path::new("/nix/store"));
        }
        let managed = folder.ancestors().find(|above| {
            above
                .file_name()
                .is_some_and(|name| MANAGERS.iter().any(|m| name == *m))
        });
        if let Some(managed) = managed {
            return self.show(managed);
        }
        let private = ["/home", "/root", "/Users", "/var/lib", "/tmp", "/run"];
        let private =
            private.iter().any(|p| folder.starts_with(p)) || home.is_some_and(|home| folder.starts_with(home));
        let Some(parent) = folder.parent() else { return };
        if !private && parent.components().count() > 2 {
            return self.show(parent);
        }
        // A folder of programs, but not a folder that happens to hold one.
        if folder
            .file_name()
            .is_some_and(|name| name == "bin" || name == "sbin" || name == "shims")
        {
            self.show(folder);
            for beside in ["lib", "lib64", "libexec"] {
                self.show(&parent.join(beside));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn make(root: &Path, paths: &[&str]) {
        for path in paths {
            fs::create_dir_all(root.join(path)).unwrap();
        }
    }

    #[test]
    fn a_home_folder_is_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        make(
            &home,
            &[
                ".cargo/bin",
                ".cargo/registry",
                ".local/bin",
                ".local/share",
                ".pyenv/shims",
                "scripts",
                ".ssh",
            ],
        );
        let mut visible = Visible::default();
        for folder in [".cargo/bin", ".local/bin", ".pyenv/shims", "scripts"] {
            visible.programs(&home.join(folder), Some(&home));
        }
        let shown: Vec<_> = visible
            .trees
            .iter()
            .map(|tree| tree.strip_prefix(&home).unwrap())
            .collect();
        assert_eq!(shown, [".cargo/bin", ".local/bin", ".pyenv"].map(Path::new));
    }

    #[test]
    fn what_a_link_leads_to_is_shown_too() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        make(&root, &["bin", "tool/bin", "tool/lib"]);
        fs::write(root.join("tool/bin/tool"), "").unwrap();
        symlink(root.join("tool/bin/tool"), root.join("bin/tool")).unwrap();
        let mut visible = Visible::default();
        visible.programs(&root.join("bin"), None);
        for path in ["bin", "tool/bin", "tool/lib"] {
            assert!(visible.covers(&root.join(path)), "{path}: {visible:?}");
        }
        assert!(!visible.covers(&root));
    }

    #[test]
    fn the_system_is_visible_and_its_secrets_are_not() {
        let visible = Visible::of_host(Some(&[]));
        assert!(visible.covers(Path::new("/usr/bin/env")));
        for path in [
            "/etc/shadow",
            "/etc/passwd",
            "/root/.ssh",
            "/home",
            "/var/lib",
            "/etc/ssl/private",
            "/",
        ] {
            assert!(!visible.covers(Path::new(path)), "{path}");
        }
    }
}
