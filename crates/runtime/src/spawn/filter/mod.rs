//! The seccomp filter: which system calls a run may make.
//!
//! Every number up to the newest that this code knows is allowed unless it is named below; what is newer does not
//! exist. How that becomes a program for the kernel is in [`program`](mod@program).

mod program;
#[cfg(test)]
mod tests;

pub(super) use program::program;

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
