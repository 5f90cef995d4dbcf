//! Whatever a client says proves its key: nothing does, for nobody here has a private half; and a key that is
//! read is written as it was read. One line of base64 is the key, all that follows is the proof.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rexec::identity::{Fingerprint, Presence, PublicKey, verify_auth};

fuzz_target!(|text: &str| {
    let (key, proof) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(key) = PublicKey::from_base64(key) else { return };
    assert_eq!(PublicKey::from_blob(key.blob()).as_ref(), Ok(&key));
    let line = key.to_string();
    let (kind, base64) = line.split_once(' ').unwrap();
    assert_eq!(PublicKey::from_words(kind, base64).as_ref(), Ok(&key));
    let presence = Presence { touch: false, verify: false };
    let host = Fingerprint::of_blob(b"host");
    assert!(verify_auth(&key, proof, &host, None, &[7; 32], presence).is_err());
});
