//! The seccomp filter: which system calls a run may make.
//!
//! Every number up to the newest that this code knows is allowed unless it is named below; what is newer does not
//! exist. The filter is a binary search, because the kernel tries it out for each number when it is loaded: a chain of
//! comparisons costs three times as much per start. It is made once, and short, since the kernel also translates all of it at
//! each start: what refuses is there once for all that come to it, and numbers that stand alone are one comparison each.

use super::step::{Step, Trouble};
use libc::sock_filter;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const IF_ANY_OF: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// The lower half of an argument; both systems that are known here are little-endian.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

/// Numbers of the x32 interface have this bit.
const X32: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0x4000_0000)
} else {
    None
};

/// The newest system call that was judged here; later ones do not exist for a run.
const NEWEST: libc::c_long = libc::SYS_mseal;

/// Flags of `clone` that make namespaces.
const NAMESPACES: u32 = 0x7E02_0000;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse(i32),
    /// The process ends by `SIGSYS`: nobody calls these by mistake.
    Kill,
    /// Refused if the argument has one of these bits.
    RefuseBits {
        argument: u32,
        bits: u32,
    },
    /// Refused if the argument is one of these.
    RefuseValues {
        argument: u32,
        values: &'static [u32],
    },
    /// Refused unless the argument is one of these.
    OnlyValues {
        argument: u32,
        values: &'static [u32],
        errno: i32,
    },
    /// Refused unless all of these arguments are zero, and this one is not that.
    OnlyZero {
        arguments: &'static [u32],
        unless: Option<(u32, u32)>,
    },
}

/// Whom the filter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In namespaces of its own: it may have sockets, which reach its own loopback only.
    Sandboxed,
    /// In namespaces that bubblewrap has made: nobody listens on its loopback, so that it needs none.
    Bubblewrap,
    /// Without namespaces: no sockets but unix ones, nothing that reaches other processes of the machine.
    Confined,
}

/// Refused with `EPERM` everywhere.
const REFUSED: &[libc::c_long] = &[
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_perf_event_open,
    // large parts of the kernel
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // mounts and namespaces
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // the machine
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_sync,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // a share of the processors of its own: the kernel may group processes by session
    libc::SYS_setsid,
    // memory that neither the limits nor the size of the tmpfs count
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS__sysctl,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS_getpmsg,
    174,
    177,
    178, // create_module, get_kernel_syms, query_module
    libc::SYS_putpmsg,
    libc::SYS_afs_syscall,
    libc::SYS_tuxcall,
    libc::SYS_security,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// As if the kernel did not know of them, so that programs do without: whole huge pages in pipes, which nobody counts, and
/// what the machine has one number of for all.
const UNKNOWN: &[libc::c_long] = &[libc::SYS_vmsplice, libc::SYS_io_setup, libc::SYS_io_submit];

/// Nobody calls these by mistake.
const KILLED: &[libc::c_long] = &[
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
];

/// Refused besides where the user may be the host's own. The first argument of those below is a process, zero for oneself.
const REFUSED_CONFINED: &[libc::c_long] = &[libc::SYS_ioprio_set];

const OF_OTHERS: &[libc::c_long] = &[
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];

const MARK: &[u32] = &[super::confined::MARK_NUMBER];

/// Whoever opens a file that has a lease waits for its holder; the second is for folders, since Linux 6.19.
const F_SETLEASE: u32 = 1024;
const F_SETDELEG: u32 = 1040;

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

/// By number; of several verdicts on one call the first counts.
fn sorted(mut verdicts: Vec<(u32, Verdict)>) -> Vec<(u32, Verdict)> {
    verdicts.sort_by_key(|(number, _)| *number);
    verdicts.dedup_by_key(|(number, _)| *number);
    verdicts
}

fn verdicts(kind: Kind) -> Vec<(u32, Verdict)> {
    let mut verdicts = Vec::new();
    let mut set = |numbers: &[libc::c_long], verdict| {
        verdicts.extend(numbers.iter().filter_map(|n| Some((u32::try_from(*n).ok()?, verdict))));
    };
    set(REFUSED, Verdict::Refuse(libc::EPERM));
    set(REFUSED_HERE, Verdict::Refuse(libc::EPERM));
    set(KILLED, Verdict::Kill);
    // Not EPERM: libc starts its threads by `clone3` and falls back to `clone` only if that does not exist.
    set(&[libc::SYS_clone3], Verdict::Refuse(libc::ENOSYS));
    set(UNKNOWN, Verdict::Refuse(libc::ENOSYS));
    set(
        &[libc::SYS_clone],
        Verdict::RefuseBits {
            argument: 0,
            bits: NAMESPACES,
        },
    );
    set(
        &[libc::SYS_ioctl],
        Verdict::RefuseValues {
            argument: 1,
            values: &[TIOCSTI, TIOCLINUX],
        },
    );
    let lease = Verdict::RefuseValues {
        argument: 1,
        values: &[F_SETLEASE, F_SETDELEG],
    };
    set(&[libc::SYS_fcntl], lease);
    // Asking for the personality, and setting the ordinary one.
    set(
        &[libc::SYS_personality],
        Verdict::OnlyValues {
            argument: 0,
            values: &[0, u32::MAX],
            errno: libc::EPERM,
        },
    );
    // The word that the run ends with the host stays.
    let pdeathsig = Verdict::RefuseValues {
        argument: 0,
        values: &[1],
    };
    set(&[libc::SYS_prctl], pdeathsig);
    let unix = 1;
    let families: &'static [u32] = match kind {
        Kind::Sandboxed => &[1, 2, 10],
        Kind::Bubblewrap | Kind::Confined => &[1],
    };
    debug_assert!(families.contains(&unix), "programs need unix sockets");
    set(
        &[libc::SYS_socket],
        Verdict::OnlyValues {
            argument: 0,
            values: families,
            errno: libc::EAFNOSUPPORT,
        },
    );
    if kind == Kind::Confined {
        confine(&mut set);
    }
    if kind != Kind::Sandboxed {
        // The mark by which a run's processes are found stays (see `confined`).
        let mark = |argument| Verdict::RefuseValues { argument, values: MARK };
        set(&[libc::SYS_setrlimit], mark(0));
        set(&[libc::SYS_prlimit64], mark(1));
    }
    sorted(verdicts)
}

/// What is added where the user may be the host's own.
fn confine(set: &mut impl FnMut(&[libc::c_long], Verdict)) {
    set(REFUSED_CONFINED, Verdict::Refuse(libc::EPERM));
    set(
        OF_OTHERS,
        Verdict::OnlyZero {
            arguments: &[0],
            unless: None,
        },
    );
    let own_priority = Verdict::OnlyZero {
        arguments: &[0, 1],
        unless: None,
    };
    set(&[libc::SYS_setpriority], own_priority);
    set(
        &[libc::SYS_prlimit64],
        Verdict::OnlyZero {
            arguments: &[0],
            unless: Some((1, super::confined::MARK_NUMBER)),
        },
    );
}

/// Ranges by their first number, none beside one of the same verdict.
fn ranges(kind: Kind) -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = vec![(0, Verdict::Allow)];
    let mut push = |from: u32, verdict: Verdict| match ranges.last_mut() {
        Some(last) if last.0 == from => last.1 = verdict,
        Some(last) if last.1 == verdict => {}
        _ => ranges.push((from, verdict)),
    };
    for (number, verdict) in verdicts(kind) {
        push(number, verdict);
        push(number + 1, Verdict::Allow);
    }
    let newest = u32::try_from(NEWEST).unwrap_or(0);
    push(newest + 1, Verdict::Refuse(libc::ENOSYS));
    // A replaced verdict may now equal the one before it.
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    ranges
}

/// A program while it is written, from its end: all jumps lead forward, so that what they lead to is there already. Places are
/// counted from the end.
struct Writer {
    reversed: Vec<sock_filter>,
    /// Where each verdict is, which all that come to it share.
    verdicts: Vec<(Verdict, usize)>,
    /// Jumps on conditions reach over 255 others.
    too_far: bool,
}

/// So many single numbers are tried one after the other rather than halved.
const CHAIN: usize = 4;

impl Writer {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> usize {
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.reversed.len() - 1
    }

    fn branch(&mut self, code: u16, k: u32, yes: usize, no: usize) -> usize {
        let here = self.reversed.len();
        let mut over = |place: usize| {
            let over = u8::try_from(here - place - 1);
            self.too_far |= over.is_err();
            over.unwrap_or_default()
        };
        let (yes, no) = (over(yes), over(no));
        self.push(code, k, yes, no)
    }

    /// Goes to `yes` if the value is one of these.
    fn one_of(&mut self, values: &[u32], yes: usize, no: usize) -> usize {
        debug_assert!(
            !values.is_empty(),
            "what loads the value goes on with the first comparison"
        );
        let tried = values.iter().rev();
        tried.fold(no, |no, value| self.branch(IF_EQUAL, *value, yes, no))
    }

    fn refuse(&mut self, errno: i32) -> usize {
        self.verdict(Verdict::Refuse(errno))
    }

    /// Where it is; written when it is first asked for.
    fn verdict(&mut self, verdict: Verdict) -> usize {
        if let Some((_, place)) = self.verdicts.iter().find(|(known, _)| *known == verdict) {
            return *place;
        }
        let place = match verdict {
            Verdict::Allow => self.push(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
            Verdict::Refuse(errno) => {
                let answer = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap_or(1);
                self.push(RETURN, answer, 0, 0)
            }
            Verdict::Kill => self.push(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
            Verdict::RefuseBits { argument: index, bits } => {
                let (no, yes) = (self.refuse(libc::EPERM), self.verdict(Verdict::Allow));
                self.branch(IF_ANY_OF, bits, no, yes);
                self.push(LOAD, argument(index), 0, 0)
            }
            Verdict::RefuseValues {
                argument: index,
                values,
            } => {
                let (no, yes) = (self.refuse(libc::EPERM), self.verdict(Verdict::Allow));
                self.one_of(values, no, yes);
                self.push(LOAD, argument(index), 0, 0)
            }
            Verdict::OnlyValues {
                argument: index,
                values,
                errno,
            } => {
                let (no, yes) = (self.refuse(errno), self.verdict(Verdict::Allow));
                self.one_of(values, yes, no);
                self.push(LOAD, argument(index), 0, 0)
            }
            Verdict::OnlyZero { arguments, unless } => {
                let (no, mut next) = (self.refuse(libc::EPERM), self.verdict(Verdict::Allow));
                if let Some((index, value)) = unless {
                    self.branch(IF_EQUAL, value, no, next);
                    next = self.push(LOAD, argument(index), 0, 0);
                }
                for index in arguments.iter().rev() {
                    self.branch(IF_EQUAL, 0, next, no);
                    next = self.push(LOAD, argument(*index), 0, 0);
                }
                next
            }
        };
        self.verdicts.push((verdict, place));
        place
    }

    /// A search in these ranges, the last of which ends before `end`.
    fn search(&mut self, ranges: &[(u32, Verdict)], end: Option<u32>) -> usize {
        let ends = ranges.iter().skip(1).map(|(first, _)| Some(*first)).chain([end]);
        let alone = |first: u32, end: Option<u32>| end == Some(first + 1);
        let mut wide = ranges
            .iter()
            .zip(ends.clone())
            .filter(|((first, _), end)| !alone(*first, *end));
        let common = wide.next().map(|((_, verdict), _)| *verdict);
        let Some(common) = common.or_else(|| ranges.last().map(|(_, verdict)| *verdict)) else {
            return self.verdict(Verdict::Kill);
        };
        let simple = wide.all(|((_, verdict), _)| *verdict == common);
        let singles = ranges.iter().filter(|(_, verdict)| *verdict != common);
        if simple && singles.clone().count() <= CHAIN {
            let otherwise = self.verdict(common);
            return singles.rev().fold(otherwise, |no, (number, verdict)| {
                let yes = self.verdict(*verdict);
                self.branch(IF_EQUAL, *number, yes, no)
            });
        }
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let middle = right.first().map(|(first, _)| *first);
        let above = self.search(right, end);
        let below = self.search(left, middle);
        self.branch(IF_AT_LEAST, middle.unwrap_or_default(), above, below)
    }
}

/// The program for the kernel.
pub(super) fn program(kind: Kind) -> Result<Vec<sock_filter>, Trouble> {
    let mut writer = Writer {
        reversed: Vec::new(),
        verdicts: Vec::new(),
        too_far: false,
    };
    let ranges = ranges(kind);
    let kill = writer.verdict(Verdict::Kill);
    for (_, verdict) in &ranges {
        writer.verdict(*verdict);
    }
    let search = writer.search(&ranges, None);
    if let Some(x32) = X32 {
        writer.branch(IF_AT_LEAST, x32, kill, search);
    }
    debug_assert!(
        ranges.len() > CHAIN,
        "the search begins with a comparison, to which the load below goes on"
    );
    let number = writer.push(LOAD, NUMBER, 0, 0);
    writer.branch(IF_EQUAL, AUDIT_ARCH, number, kill);
    writer.push(LOAD, ARCH, 0, 0);
    if writer.too_far {
        return Err(Trouble {
            step: Step::Seccomp,
            errno: rustix::io::Errno::TOOBIG,
        });
    }
    writer.reversed.reverse();
    Ok(writer.reversed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn run(program: &[sock_filter], number: u32, arch: u32, arguments: [u32; 6]) -> u32 {
        let (mut at, mut value) = (0_usize, 0);
        loop {
            let op = program[at];
            at += 1;
            let mut go = |yes: bool| at += usize::from(if yes { op.jt } else { op.jf });
            match op.code {
                LOAD if op.k == NUMBER => value = number,
                LOAD if op.k == ARCH => value = arch,
                LOAD => value = arguments[usize::try_from((op.k - 16) / 8).unwrap()],
                IF_EQUAL => go(value == op.k),
                IF_AT_LEAST => go(value >= op.k),
                IF_ANY_OF => go(value & op.k != 0),
                RETURN => return op.k,
                code => panic!("no such code: {code}"),
            }
        }
    }

    fn number(n: libc::c_long) -> u32 {
        u32::try_from(n).unwrap()
    }

    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;

    /// What a verdict says of a call.
    fn judged(verdict: Option<&Verdict>, arguments: [u32; 6]) -> u32 {
        let of = |index: u32| arguments[usize::try_from(index).unwrap()];
        let refused = |errno: i32| libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap();
        let unless = |refuse: bool, errno: i32| {
            if refuse {
                refused(errno)
            } else {
                libc::SECCOMP_RET_ALLOW
            }
        };
        match verdict {
            None | Some(Verdict::Allow) => libc::SECCOMP_RET_ALLOW,
            Some(Verdict::Kill) => libc::SECCOMP_RET_KILL_PROCESS,
            Some(Verdict::Refuse(errno)) => refused(*errno),
            Some(Verdict::RefuseBits { argument, bits }) => unless(of(*argument) & bits != 0, libc::EPERM),
            Some(Verdict::RefuseValues { argument, values }) => unless(values.contains(&of(*argument)), libc::EPERM),
            Some(Verdict::OnlyValues {
                argument,
                values,
                errno,
            }) => unless(!values.contains(&of(*argument)), *errno),
            Some(Verdict::OnlyZero {
                arguments,
                unless: forbidden,
            }) => {
                let others = arguments.iter().any(|index| of(*index) != 0);
                let named = forbidden.is_some_and(|(index, value)| of(index) == value);
                unless(others || named, libc::EPERM)
            }
        }
    }

    #[test]
    fn every_number_gets_the_verdict_that_is_written_down() {
        let values = [
            0,
            1,
            2,
            7,
            10,
            15,
            16,
            17,
            1024,
            1040,
            4711,
            TIOCSTI,
            TIOCLINUX,
            0x2000_0000,
            NAMESPACES,
            u32::MAX,
        ];
        for kind in [Kind::Sandboxed, Kind::Bubblewrap, Kind::Confined] {
            let program = program(kind).unwrap();
            assert!(program.len() < 150, "{} instructions", program.len());
            let special: std::collections::BTreeMap<_, _> = verdicts(kind).into_iter().collect();
            for n in (0..1000).chain([u32::MAX >> 2]) {
                for (first, second) in values.iter().flat_map(|first| values.map(|second| (*first, second))) {
                    let arguments = [first, second, 0, 0, 0, 0];
                    let expected = match n > number(NEWEST) {
                        true => ENOSYS,
                        false => judged(special.get(&n), arguments),
                    };
                    let got = run(&program, n, AUDIT_ARCH, arguments);
                    assert_eq!(got, expected, "{kind:?}, number {n} of {first:#x} and {second:#x}");
                }
            }
        }
    }

    fn ask(program: &[sock_filter], n: libc::c_long, at: usize, value: u32) -> u32 {
        let mut arguments = [0; 6];
        arguments[at] = value;
        run(program, number(n), AUDIT_ARCH, arguments)
    }

    #[test]
    fn arguments_decide_where_numbers_cannot() {
        let sandboxed = program(Kind::Sandboxed).unwrap();
        let confined = program(Kind::Confined).unwrap();
        let allow = libc::SECCOMP_RET_ALLOW;
        for flags in [
            0x1000_0000,
            0x2000_0000,
            0x4000_0000,
            0x0002_0000,
            0x0200_0000,
            0x0400_0000,
            0x0800_0000,
        ] {
            assert_eq!(ask(&sandboxed, libc::SYS_clone, 0, flags | 17), EPERM);
        }
        assert_eq!(ask(&sandboxed, libc::SYS_clone, 0, 0x003D_0F00), allow, "a thread");
        assert_eq!(ask(&sandboxed, libc::SYS_clone3, 0, 0), ENOSYS);
        assert_eq!(ask(&sandboxed, libc::SYS_ioctl, 1, TIOCSTI), EPERM);
        assert_eq!(ask(&sandboxed, libc::SYS_ioctl, 1, 0x5401), allow);
        assert_eq!(ask(&sandboxed, libc::SYS_fcntl, 1, F_SETLEASE), EPERM);
        assert_eq!(ask(&sandboxed, libc::SYS_fcntl, 1, 4), allow, "F_SETFL");
        assert_eq!(ask(&sandboxed, libc::SYS_personality, 0, 0x0004_0000), EPERM);
        assert_eq!(ask(&sandboxed, libc::SYS_prctl, 0, 1), EPERM);
        assert_eq!(ask(&sandboxed, libc::SYS_prctl, 0, 15), allow);
        let unsupported = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EAFNOSUPPORT).unwrap();
        for (family, here, there) in [(1, allow, allow), (2, allow, unsupported), (10, allow, unsupported)] {
            assert_eq!(ask(&sandboxed, libc::SYS_socket, 0, family), here);
            assert_eq!(ask(&confined, libc::SYS_socket, 0, family), there);
        }
        for family in [16, 17, 40, 44] {
            assert_eq!(ask(&sandboxed, libc::SYS_socket, 0, family), unsupported);
        }
        // Of others: the host may have the same user.
        for number in [
            libc::SYS_prlimit64,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setattr,
        ] {
            assert_eq!(ask(&confined, number, 0, 4711), EPERM);
            assert_eq!(ask(&confined, number, 0, 0), allow);
            assert_eq!(ask(&sandboxed, number, 0, 4711), allow);
        }
        for (at, value, expected) in [(0, 0, allow), (0, 2, EPERM), (1, 4711, EPERM)] {
            assert_eq!(ask(&confined, libc::SYS_setpriority, at, value), expected);
        }
    }

    #[test]
    fn the_mark_stays_where_runs_are_found_by_it() {
        let allow = libc::SECCOMP_RET_ALLOW;
        for (kind, expected) in [
            (Kind::Sandboxed, allow),
            (Kind::Bubblewrap, EPERM),
            (Kind::Confined, EPERM),
        ] {
            let program = program(kind).unwrap();
            for (number, at) in [(libc::SYS_prlimit64, 1), (libc::SYS_setrlimit, 0)] {
                let mark = super::super::confined::MARK_NUMBER;
                assert_eq!(ask(&program, number, at, mark), expected, "{kind:?}");
                assert_eq!(ask(&program, number, at, 7), allow, "{kind:?}");
            }
        }
        let bubblewrap = program(Kind::Bubblewrap).unwrap();
        let others = ask(&bubblewrap, libc::SYS_prlimit64, 0, 4711);
        assert_eq!(others, allow, "in a PID namespace of its own");
    }

    #[test]
    fn foreign_interfaces_kill() {
        let program = program(Kind::Sandboxed).unwrap();
        let kill = libc::SECCOMP_RET_KILL_PROCESS;
        assert_eq!(run(&program, 1, 0x4000_0003, [0; 6]), kill, "32 bits");
        if let Some(x32) = X32 {
            assert_eq!(run(&program, x32 | 1, AUDIT_ARCH, [0; 6]), kill);
        }
    }
}
