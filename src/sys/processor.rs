//! What the processor can do.

use std::arch::is_x86_feature_detected as has;

/// Whether it has the instructions that graviola is written in, which panics without them: most x86-64 processors since
/// 2015 do. Asking for the first time takes a virtual machine some 30 microseconds.
#[must_use]
pub fn suits_graviola() -> bool {
    has!("adx")
        && has!("aes")
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("pclmulqdq")
        && has!("ssse3")
}
