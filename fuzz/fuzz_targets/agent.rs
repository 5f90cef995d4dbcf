//! Whatever an agent answers, what is taken for a key is one, and nothing panics. The first byte is the
//! answer's type, as on the wire.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rexec::identity::{PublicKey, read_keys, read_signature};

fuzz_target!(|reply: &[u8]| {
    if let Ok(keys) = read_keys(reply) {
        for key in keys {
            assert_eq!(PublicKey::from_blob(key.public.blob()).as_ref(), Ok(&key.public));
            assert!(!key.comment.contains(char::is_control));
        }
    }
    if let Ok(signature) = read_signature(reply) {
        assert!(!signature.as_bytes().is_empty() || signature.algorithm().is_rsa());
    }
});
