//! Medians and spreads.

/// A value between the sorted samples: `part` 0.5 is the median.
pub(crate) fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index among a few hundred samples"
    )]
    let (low, at) = {
        let at = part * last as f64;
        (at.floor() as usize, at)
    };
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * at.fract()
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// Interquartile range over median: half of all samples lie within it.
pub(crate) fn spread(samples: &[f64]) -> f64 {
    (quantile(samples, 0.75) - quantile(samples, 0.25)) / median(samples)
}
