//! What bubblewrap is told: the same root, limits of files and inputs that a run of our own has.
//!
//! All of it goes through descriptors, since everybody on the machine may read a command line. The environment too: in the
//! environment of bubblewrap itself, which runs outside, a script's `LD_PRELOAD` would run outside as well.

use super::super::{
    job::{Input, Job},
    orders::{FIRST_MORE, add},
    paths::Visible,
    root::{DEVICES, FILES, FOLDERS, HOSTNAME, INNER_ID, LINKS},
    step::{Step, Trouble, io_step, step},
};
use rustix::{
    fd::OwnedFd,
    fs::{Dir, MemfdFlags, Mode, OFlags, memfd_create, open},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::File,
    io::{Seek, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// The file that it reads last, when all else is done.
pub(super) const LAST: (&str, &str) = HOSTNAME;

/// The kernel takes no argument or variable of more than 32 pages, and no more of all than a quarter of the stack.
const LONGEST: usize = 128 * 1024;
const LONGEST_TOGETHER: usize = 2 << 20;

/// Bubblewrap reads no more words than this, by a limit of its own.
const MOST: usize = 9000;

/// Where it finds its words, the filter, where it says what becomes of the run, and what it waits for.
pub(super) const WORDS: u8 = FIRST_MORE;
const FILTER: u8 = FIRST_MORE + 1;
const STATUS: u8 = FIRST_MORE + 2;
const READY: u8 = FIRST_MORE + 3;
const FIRST_FILE: usize = FIRST_MORE as usize + 4;

/// Words, and the descriptors that they speak of.
struct Words {
    words: Vec<OsString>,
    files: Vec<OwnedFd>,
}

impl Words {
    fn say<'w>(&mut self, words: impl IntoIterator<Item = &'w OsStr>) {
        self.words.extend(words.into_iter().map(OsString::from));
    }

    fn plain<const N: usize>(&mut self, words: [&str; N]) {
        self.say(words.map(OsStr::new));
    }

    /// An option with two paths.
    fn pair(&mut self, option: &str, one: &Path, other: &Path) {
        self.say([OsStr::new(option), one.as_os_str(), other.as_os_str()]);
    }

    /// A file with this content.
    fn file(&mut self, at: &Path, content: &[u8], mode: u32) -> Result<(), Trouble> {
        let number = FIRST_FILE + self.files.len();
        self.files.push(memory(content)?);
        self.plain(["--perms", &format!("{mode:04o}"), "--file", &number.to_string()]);
        self.say([at.as_os_str()]);
        Ok(())
    }
}

/// A file in memory that is read from its beginning.
fn memory(content: &[u8]) -> Result<OwnedFd, Trouble> {
    let mut file = File::from(step(Step::Inputs, memfd_create(c"crosspoint", MemfdFlags::CLOEXEC))?);
    io_step(Step::Inputs, file.write_all(content))?;
    io_step(Step::Inputs, file.rewind())?;
    Ok(file.into())
}

/// The descriptors for a job, in their order. `status` and `ready` are bubblewrap's ends.
pub(super) fn descriptors(
    job: &Job,
    visible: &Visible,
    filter: &[u8],
    status: OwnedFd,
    ready: OwnedFd,
) -> Result<Vec<OwnedFd>, Trouble> {
    fits(job)?;
    let mut words = Words {
        words: Vec::new(),
        files: Vec::new(),
    };
    locks(&mut words);
    words.plain(["--clearenv"]);
    for (name, value) in &job.env {
        words.say([OsStr::new("--setenv"), name, value]);
    }
    root(&mut words, visible)?;
    processes(&mut words)?;
    own(&mut words, job)?;
    words.plain([
        "--perms",
        "0644",
        "--file",
        &READY.to_string(),
        LAST.0,
        "--remount-ro",
        "/",
    ]);
    words.say([OsStr::new("--chdir"), job.dir.as_os_str()]);
    if words.words.len() > MOST {
        return Err(Trouble {
            step: Step::Inputs,
            errno: Errno::TOOBIG,
        });
    }
    let mut said = Vec::new();
    for word in &words.words {
        if word.as_bytes().contains(&0) {
            return Err(Trouble {
                step: Step::Execute,
                errno: Errno::INVAL,
            });
        }
        said.extend_from_slice(word.as_bytes());
        said.push(0);
    }
    let mut all = vec![memory(&said)?, memory(filter)?, status, ready];
    all.append(&mut words.files);
    Ok(all)
}

/// Whether the kernel will take what the program is called with: bubblewrap finds it out when nobody listens any more.
fn fits(job: &Job) -> Result<(), Trouble> {
    let args = job.args.iter().map(|arg| arg.len() + 1);
    let variables = job.env.iter().map(|(name, value)| name.len() + value.len() + 2);
    let pointer = size_of::<usize>();
    let (mut together, mut longest) = (job.program.as_os_str().len() + 1, 0);
    for length in args.chain(variables) {
        together += length + pointer;
        longest = longest.max(length);
    }
    if longest > LONGEST || together > LONGEST_TOGETHER {
        return Err(Trouble {
            step: Step::Execute,
            errno: Errno::TOOBIG,
        });
    }
    Ok(())
}

/// Each namespace by its name: what `--unshare-all` cannot have it goes without.
fn locks(words: &mut Words) {
    for namespace in ["user", "ipc", "pid", "net", "uts", "cgroup"] {
        words.plain([&format!("--unshare-{namespace}")]);
    }
    let id = INNER_ID.to_string();
    words.plain(["--uid", &id, "--gid", &id, "--hostname", "sandbox"]);
    words.plain(["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]);
    words.plain([
        "--seccomp",
        &FILTER.to_string(),
        "--json-status-fd",
        &STATUS.to_string(),
    ]);
}

/// What `root` builds for our own runs.
fn root(words: &mut Words, visible: &Visible) -> Result<(), Trouble> {
    for tree in &visible.trees {
        words.pair("--ro-bind-try", tree, tree);
    }
    for (at, target) in &visible.links {
        words.pair("--symlink", target, at);
    }
    for folder in FOLDERS {
        words.plain(["--perms", "0755", "--dir", folder]);
    }
    for (at, text) in FILES.iter().filter(|file| *file != &LAST) {
        words.file(Path::new(at), text.as_bytes(), 0o644)?;
    }
    for (at, target) in LINKS {
        words.plain(["--symlink", target, at]);
    }
    for device in DEVICES {
        let device = format!("/dev/{device}");
        words.plain(["--dev-bind", &device, &device]);
    }
    Ok(())
}

/// A `/proc` of which only processes are left to be read: it cannot be mounted so.
fn processes(words: &mut Words) -> Result<(), Trouble> {
    words.plain(["--proc", "/proc"]);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let host = step(Step::RootProc, open(c"/proc", flags, Mode::empty()))?;
    for entry in step(Step::RootProc, Dir::read_from(&host))? {
        let entry = step(Step::RootProc, entry)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.bytes().all(|b| b.is_ascii_digit()) {
            // Processes come last, and there may be many.
            break;
        }
        let at = format!("/proc/{name}");
        match entry.file_type() {
            rustix::fs::FileType::Directory if name != "." && name != ".." => {
                words.plain(["--perms", "0555", "--size", "4096", "--tmpfs", &at, "--remount-ro", &at]);
            }
            // What is bound read-only is no device any more: it cannot be opened.
            rustix::fs::FileType::RegularFile => words.plain(["--ro-bind", "/dev/null", &at]),
            _ => {}
        }
    }
    Ok(())
}

/// The run's own: `/w` with what is in it, and what else it may read.
fn own(words: &mut Words, job: &Job) -> Result<(), Trouble> {
    words.plain([
        "--perms",
        "0700",
        "--size",
        &job.limits.disk.max(4096).to_string(),
        "--tmpfs",
        "/w",
    ]);
    let (mut made, mut entries) = (BTreeSet::new(), Vec::new());
    for input in &job.inputs {
        add(input, &mut made, &mut entries)?;
    }
    for name in ["work", "tmp"] {
        add(&Input::folder(name), &mut made, &mut entries)?;
    }
    for entry in &entries {
        let at = Path::new("/w").join(OsStr::from_bytes(entry.name.to_bytes()));
        match &entry.content {
            Some(content) => words.file(&at, content, entry.mode.as_raw_mode())?,
            None => {
                words.plain(["--perms", &format!("{:04o}", entry.mode.as_raw_mode()), "--dir"]);
                words.say([at.as_os_str()]);
            }
        }
    }
    for (source, target) in &job.read_only {
        words.pair("--ro-bind", source, target);
    }
    Ok(())
}
