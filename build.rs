//! How the programs are linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if !(is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu")) {
        return;
    }
    // The unwinder becomes a part of the program, as with gcc's -static-libgcc. The shared one (libgcc_s) is
    // found, mapped and bound at each start, and asks for the processor's features, for which a virtual
    // machine is left each time: together a twentieth of the time that a short command takes.
    println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    // The functions of a short command go side by side. The kernel maps a program where it is run, in pieces of
    // 64 KiB; spread over the whole program they touch most of its pieces, at each start.
    println!("cargo::rerun-if-changed=src/bin/rexec.ld");
    if is("PROFILE", "release") && has_usual_linker() {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bin=rexec=-T{folder}/src/bin/rexec.ld");
    }
}

fn is(key: &str, value: &str) -> bool {
    env::var(key).is_ok_and(|found| found == value)
}

/// Whether nothing chooses a linker but the compiler: its own, LLVM's or GNU's, both know `INSERT` in a script.
/// Others may not.
fn has_usual_linker() -> bool {
    let chosen = |key| env::var_os(key).is_some_and(|value| !value.is_empty());
    !chosen("RUSTC_LINKER") && !chosen("CARGO_ENCODED_RUSTFLAGS")
}
