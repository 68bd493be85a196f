use super::{
    program::{ARCH, AUDIT_ARCH, IF_ANY_OF, IF_AT_LEAST, IF_EQUAL, LOAD, NUMBER, RETURN, X32},
    *,
};
use libc::sock_filter;

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
                let expected = if n > number(NEWEST) {
                    ENOSYS
                } else {
                    judged(special.get(&n), arguments)
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
            let mark = crate::spawn::confined::MARK_NUMBER;
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
