//! What a run finds, and what it may call.

use super::*;

#[tokio::test]
async fn a_run_has_no_privileges_at_all() {
    let status = told(shell("cat /proc/self/status")).await;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(line("NoNewPrivs:"), ["1"]);
    assert_eq!(line("Seccomp:"), ["2"]);
    for ids in ["Uid:", "Gid:"] {
        assert_eq!(line(ids), ["1000"; 4]);
    }
    assert_eq!(line("SigBlk:"), ["0000000000000000"], "no signal is blocked");
    assert_eq!(
        line("SigIgn:"),
        ["0000000000000000"],
        "no signal is ignored, though the host ignores SIGPIPE"
    );
}

#[tokio::test]
async fn nothing_of_the_host_has_a_name() {
    let script = "ls /; echo --; ls /proc | grep '^[0-9]' | wc -l; hostname; ls -A /w; \
                  for p in /etc/shadow /root/.ssh /root/.bashrc /home/* /var/lib /var/log /sys/kernel /boot /mnt /media \
                  /srv /proc/kallsyms /proc/sys /proc/kcore /proc/mounts /dev/kvm /dev/vda /dev/sda /dev/tty /dev/mem \
                  /old /etc/ssl/private; do [ -e $p ] && echo found $p; done; cat /proc/1/comm; cat /proc/self/cgroup";
    let out = told(shell(script)).await;
    let (roots, rest) = out.split_once("--\n").unwrap();
    for name in roots.lines() {
        let known = [
            "app", "bin", "dev", "etc", "layer", "lib", "lib32", "lib64", "libx32", "nix", "opt", "proc", "root",
            "run", "sbin", "tmp", "usr", "var", "w",
        ];
        assert!(known.contains(&name), "/{name} is visible");
    }
    assert!(!rest.contains("found"), "{rest}");
    let lines: Vec<_> = rest.lines().collect();
    let processes: u32 = lines[0].trim().parse().unwrap();
    assert!(processes <= 5, "only its own processes: {rest}");
    assert_eq!(lines[1..4], ["sandbox", "tmp", "work"]);
    assert!(rest.contains("sh\n"), "the first process is its own: {rest}");
}

#[tokio::test]
async fn the_environment_is_what_was_given() {
    let out = told(program("/usr/bin/env", &[])).await;
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(out.starts_with("PATH="), "{out}");
}

#[tokio::test]
async fn no_descriptor_is_inherited() {
    let _mine = std::fs::File::open("/etc/hosts").unwrap();
    let out = told(shell("ls /proc/$$/fd")).await;
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2"]);
}

/// The errors of system calls made inside, by number.
async fn errors(level: Isolation, calls: &[String]) -> Vec<i32> {
    let body: String = calls
        .iter()
        .map(|call| format!("$! = 0; my $r = syscall({call}); print(($r < 0 ? $!+0 : 0), qq(\\n));"))
        .collect();
    let told = confined::run_at(level, perl(&body)).await;
    assert!(told.ended.status.success(), "{told:?}");
    told.out.lines().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test]
async fn what_reaches_into_the_kernel_is_refused() {
    if !has("perl") {
        return;
    }
    let refused = [
        (libc::SYS_clone, "0x10000011, 0, 0, 0, 0"),
        (libc::SYS_clone, "0x20000011, 0, 0, 0, 0"),
        (libc::SYS_unshare, "0x10000000"),
        (libc::SYS_unshare, "0"),
        (libc::SYS_setns, "0, 0"),
        (libc::SYS_mount, "0, 0, 0, 0, 0"),
        (libc::SYS_umount2, "0, 0"),
        (libc::SYS_pivot_root, "0, 0"),
        (libc::SYS_chroot, "0"),
        (libc::SYS_open_tree, "0, 0, 0"),
        (libc::SYS_fsopen, "0, 0"),
        (libc::SYS_ptrace, "0, 0, 0, 0"),
        (libc::SYS_process_vm_readv, "1, 0, 0, 0, 0, 0"),
        (libc::SYS_pidfd_getfd, "0, 0, 0"),
        (libc::SYS_bpf, "0, 0, 0"),
        (libc::SYS_perf_event_open, "0, 0, 0, 0, 0"),
        (libc::SYS_userfaultfd, "0"),
        (libc::SYS_io_uring_setup, "1, 0"),
        (libc::SYS_keyctl, "0, 0, 0, 0, 0"),
        (libc::SYS_add_key, "0, 0, 0, 0, 0"),
        (libc::SYS_memfd_create, "0, 0"),
        (libc::SYS_shmget, "0, 4096, 0600"),
        (libc::SYS_sethostname, "0, 0"),
        (libc::SYS_clock_settime, "0, 0"),
        (libc::SYS_personality, "0x0040000"),
        (libc::SYS_prctl, "1, 0, 0, 0, 0"),
        (libc::SYS_ioctl, "0, 0x5412, 0"),
        (libc::SYS_sync, ""),
    ];
    let calls: Vec<_> = refused
        .iter()
        .map(|(n, rest)| format!("{n}, {rest}").trim_end_matches(", ").to_owned())
        .collect();
    for level in [SANDBOXED, Isolation::Confined] {
        for (errno, call) in errors(level, &calls).await.into_iter().zip(&calls) {
            assert_eq!(errno, libc::EPERM, "{level}: {call}");
        }
        let others = [
            (libc::SYS_clone3, "0, 0", libc::ENOSYS),
            (libc::SYS_socket, "16, 3, 0", libc::EAFNOSUPPORT),
            (libc::SYS_socket, "17, 3, 0", libc::EAFNOSUPPORT),
            (libc::SYS_socket, "40, 1, 0", libc::EAFNOSUPPORT),
            (libc::SYS_socket, "1, 1, 0", 0),
            (500, "0", libc::ENOSYS),
            (libc::SYS_personality, "0xffffffff", 0),
        ];
        let calls: Vec<_> = others.iter().map(|(n, rest, _)| format!("{n}, {rest}")).collect();
        for (got, (number, rest, expected)) in errors(level, &calls).await.into_iter().zip(others) {
            assert_eq!(got, expected, "{level}: {number}, {rest}");
        }
    }
}

#[tokio::test]
async fn a_call_that_nobody_makes_by_mistake_ends_the_run() {
    if !has("perl") {
        return;
    }
    let script = format!("syscall({}, 0, 0, 0); print 'alive'", libc::SYS_init_module);
    let told = run(&sandbox(), SANDBOXED, perl(&script)).await;
    assert_eq!(
        (told.ended.cause, &*told.out),
        (crosspoint_runtime::bare::Cause::Forbidden, "")
    );
}

#[tokio::test]
async fn interpreters_start_threads() {
    let threads = "import threading; r=[]; t=[threading.Thread(target=r.append,args=(i,)) for i in range(8)]; \
                   [x.start() for x in t]; [x.join() for x in t]; print(len(r))";
    let workers = "const {Worker}=require('worker_threads'); const w=new Worker('require(\"worker_threads\")\
                   .parentPort.postMessage(8)',{eval:true}); w.on('message',m=>console.log(m))";
    for (name, flag, script) in [("python3", "-c", threads), ("node", "-e", workers)] {
        if has(name) {
            let job = shell(&format!("exec {name} {flag} \"$0\"")).arg(script);
            let told = run(&sandbox(), SANDBOXED, job).await;
            assert_eq!(told.out.trim(), "8", "{name}: {told:?}");
        }
    }
}
