//! Short runs in turns.

use crate::Fallible;
use crate::report::Line;
use crate::rounds::Rounds;
use crate::stats::median;

/// Runs once, and says how many milliseconds that took.
pub(crate) type Run<'a> = Box<dyn FnMut() -> Fallible<f64> + 'a>;

/// Milliseconds. What takes less is so short that one disturbance is a large part of it.
const SHORT: f64 = 20.0;
/// So often is a short one run for one sample.
pub(crate) const TURNS: usize = 15;
/// For the row's reader.
pub(crate) const NOTE: &str = "what takes less than 20 ms is run 15 times in a round, one of each line after another, and \
     the middle one counts";

/// Rounds of them: of each, the samples go to its line.
pub(crate) fn measure(
    rounds: Rounds,
    turns: usize,
    runs: &mut [Run],
    lines: &mut [Line],
) -> Fallible<()> {
    // The first round fills the caches, and is not counted.
    for at in rounds.after_warm_up() {
        let samples = round(turns, runs)?;
        if at > 0 {
            lines.iter_mut().zip(samples).for_each(|(line, sample)| line.samples.push(sample));
        }
    }
    Ok(())
}

/// Each runs directly after the other, again and again, and the middle one of its times is its sample. A
/// mood of the machine lasts longer than a turn, and so it hits all of them alike.
fn round(turns: usize, runs: &mut [Run]) -> Fallible<Vec<f64>> {
    let mut took = vec![Vec::new(); runs.len()];
    for _ in 0..turns {
        for (run, took) in runs.iter_mut().zip(&mut took) {
            if took.iter().all(|ms| *ms < SHORT) {
                took.push(run()?);
            }
        }
    }
    Ok(took.iter().map(|took| median(took)).collect())
}
