//! The server: see `rexec-server --help`.

rexec::own_pow!();

fn main() -> std::process::ExitCode {
    rexec::rexec_server_main()
}
