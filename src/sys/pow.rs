//! The one function that the programs need of the C library's mathematics: tokio's and indicatif's averages
//! ask for it. For it alone the dynamic linker would find, map and bind `libm.so` at each start, which takes
//! as long as a login's cryptography on one side. With a definition of its own a program does not name that
//! library. The definition is the programs' alone: one in this library would be that of whoever links it.

/// Defines `pow(3)` in a program, by its C name.
#[macro_export]
macro_rules! own_pow {
    () => {
        // SAFETY: the name is that of the C function, and so are type and meaning (C17, 7.12.7.4): whoever calls
        // one may call the other. `errno` is not set; Rust's `powf`, the only caller, does not read it.
        #[allow(unsafe_code, reason = "the linker finds the function by its C name")]
        #[unsafe(no_mangle)]
        extern "C" fn pow(base: f64, exponent: f64) -> f64 {
            $crate::sys::pow::pow(base, exponent)
        }
    };
}

/// Exact to one unit in the last place, as the C library's is.
#[doc(hidden)]
#[must_use]
pub fn pow(base: f64, exponent: f64) -> f64 {
    libm::pow(base, exponent)
}

#[cfg(test)]
mod tests {
    #[test]
    fn powers_are_those_of_the_c_library() {
        let number = |text: &str| text.parse::<f64>().unwrap();
        // By `python3 -c 'print(0.1 ** (1 / 15), 0.9 ** 1000)'`, which asks the C library.
        for (base, exponent, power) in [
            ("0.1", 1.0 / 15.0, 0.857_695_898_590_894_1),
            ("0.9", 1000.0, 1.747_871_251_722_694_7e-46),
            ("2", -1074.0, 5e-324),
            ("2", 1024.0, f64::INFINITY),
            ("0", 0.0, 1.0),
        ] {
            let found = super::pow(number(base), exponent);
            assert_eq!(found.to_bits(), power.to_bits(), "{base}^{exponent}: {found:e}");
        }
        assert!(super::pow(number("-2"), 0.5).is_nan());
    }
}
