//! A certificate that is read is its CA's word, byte by byte: with any byte changed it is none.
//!
//! The first two bytes say which byte of a good certificate is changed to the third; the rest is read as it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rexec::identity::{Certificate, Revoked};

/// Made by `ssh-keygen -s ca -I id -n me -z 17 -O force-command=true -O source-address=10.0.0.0/8`.
const GOOD: &[u8] = include_bytes!("../seeds/certificate/good");

fuzz_target!(|data: &[u8]| {
    let good = Certificate::from_blob(GOOD).unwrap();
    if let [high, low, byte, ..] = data {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % GOOD.len();
        let mut changed = GOOD.to_vec();
        changed[at] = *byte;
        assert_eq!(Certificate::from_blob(&changed).is_ok(), GOOD[at] == *byte);
    }
    if let Ok(read) = Certificate::from_blob(data) {
        assert_eq!((read.id(), read.serial()), (good.id(), good.serial()), "a forgery");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Certificate::from_base64(text);
        // A list that is understood bars what it names.
        let (list, errors) = Revoked::parse(&format!("serial: 17\n{text}"));
        assert!(list.has_certificate(&good) || errors.iter().any(|e| e.line == 1), "{errors:?}");
    }
});
