//! The client: see `rexec --help`.
#![cfg_attr(target_env = "gnu", no_main)]

rexec::own_pow!();
rexec::program!(rexec::rexec_main);
