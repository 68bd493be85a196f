//! What a sandboxed run costs beyond a plain one. `cargo bench -p crosspoint-benches --bench sandbox`
//!
//! Group `spawn`: one run of `/usr/bin/true`, from the request to its reaped end: a plain `posix_spawn`, bubblewrap with the
//! same mounts, and our levels. Group `host_memory`: the same while this process holds much memory; `host_sockets`: many
//! connections. Then two tables that criterion has no shape for: paced runs with their tails, runs a second with two callers, and
//! the time from a kill to the end of a hundred processes. `sandbox -- tables` prints only these, `sandbox -- warm` only that of
//! Python kept warm: runs started 20 times a second through the platform's runner, beside the same script started cold.
//!
//! Every figure depends on what else the machine does; compare those of one run.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints, and stops at the first surprise"
)]

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod linux;

fn main() {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    linux::main();
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    println!("sandboxes are for Linux");
}
