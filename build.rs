//! How the programs are linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The unwinder becomes a part of the program, as with gcc's -static-libgcc. The shared one (libgcc_s) is
    // found, mapped and bound at each start, and asks for the processor's features, for which a virtual
    // machine is left each time: together a twentieth of the time that a short command takes.
    let is = |key, value: &str| std::env::var(key).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
