//! Any text is a configuration or is refused with one line that says where; none panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rexec::cli::rexec_server::check_config;

fuzz_target!(|text: &str| {
    let Err(said) = check_config(text) else { return };
    assert!(!said.contains('\n'), "{said:?}");
    let mut place = said.splitn(3, ':').map(|number| number.parse::<usize>().ok());
    let (line, column) = (place.next().flatten(), place.next().flatten());
    let (line, column) = line.zip(column).unwrap_or_else(|| panic!("no place in {said:?}"));
    assert!(line >= 1 && column >= 1 && line <= text.matches('\n').count() + 1, "{said:?}");
});
