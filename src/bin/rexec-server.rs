//! The server: see `rexec-server --help`.

fn main() -> std::process::ExitCode {
    rexec::rexec_server_main()
}
