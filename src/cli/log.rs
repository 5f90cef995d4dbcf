//! The server's log, on stderr.

use std::fmt;
use std::io::{self, IsTerminal as _};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::server_args::LogFormat;

/// Whether what is written to stderr goes to systemd's journal (`JOURNAL_STREAM`, systemd.exec(5)), which reads the
/// priority of a line from [`priority`] in front of it and keeps the time itself.
pub(super) fn is_journal() -> bool {
    let told = std::env::var("JOURNAL_STREAM");
    let found = rustix::fs::fstat(rustix::stdio::stderr());
    matches!((told, found), (Ok(told), Ok(found)) if told == format!("{}:{}", found.st_dev, found.st_ino))
}

/// What stands in front of a line for the journal (sd-daemon(3)).
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Lines with their priority in front.
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// Starts it. A line that cannot be written is lost, and nothing else: to complain of it there too would be a panic.
pub(super) fn start(level: Level, format: LogFormat) {
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level);
    let log = log.log_internal_errors(false).with_target(false);
    match (format, is_journal()) {
        (LogFormat::Text, false) => {
            log.with_ansi(!super::is_plain() && io::stderr().is_terminal()).init();
        }
        (LogFormat::Text, true) => {
            log.with_ansi(false).without_time().map_event_format(Prioritised).init();
        }
        (LogFormat::Json, false) => log.json().init(),
        (LogFormat::Json, true) => log.json().map_event_format(Prioritised).init(),
    }
}
