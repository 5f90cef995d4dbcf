//! The client: see `rexec --help`.

fn main() -> std::process::ExitCode {
    rexec::rexec_main()
}
