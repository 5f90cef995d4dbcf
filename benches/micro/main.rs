//! The pieces that every run goes through, one by one.
//!
//! `cargo bench --bench micro` measures their time (criterion). `scripts/instructions` counts their
//! instructions, which do not depend on what else the machine does.

mod count;
mod pieces;

use std::process::ExitCode;

use criterion::Criterion;

fn main() -> ExitCode {
    if let Some(done) = count::asked() {
        return done;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (name, prepare) in pieces::ALL {
        let mut piece = prepare();
        criterion.bench_function(name, |bencher| bencher.iter(&mut piece));
    }
    criterion.final_summary();
    ExitCode::SUCCESS
}
