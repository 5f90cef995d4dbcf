//! The manual pages, from the same definitions as the help.

use clap::{Arg, ArgAction};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// A title and a text.
pub(super) type Section = (&'static str, String);

/// The page in roff (`man(7)`).
pub(super) fn page(definition: clap::Command, sections: &[Section]) -> String {
    let mut options = definition.clone();
    options.build();
    let page = Man::new(definition);
    let part = |render: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
        let mut text = Vec::new();
        // Writing to memory cannot fail.
        let _ = render(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    };
    [
        part(&|w| page.render_title(w)),
        part(&|w| page.render_name_section(w)),
        synopsis(&options),
        part(&|w| page.render_description_section(w)),
        part(&|w| page.render_options_section(w)),
        sections.iter().map(section).collect(),
    ]
    .concat()
}

/// Every option with the name of its value; what is exclusive stands in lines of its own.
fn synopsis(definition: &clap::Command) -> String {
    let name = || bold(definition.get_name());
    let visible = definition.get_arguments().filter(|arg| !arg.is_hide_set());
    let (alone, together): (Vec<_>, Vec<_>) = visible.partition(|arg| is_alone(arg));
    let (operands, options): (Vec<_>, Vec<_>) =
        together.into_iter().partition(|arg| arg.is_positional());
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    let words = options.into_iter().chain(operands).flat_map(word);
    roff.text([name()].into_iter().chain(words).collect::<Vec<_>>());
    for arg in alone {
        let line = [name(), roman(" ")].into_iter().chain(flag(arg));
        roff.control("br", []).text(line.collect::<Vec<_>>());
    }
    roff.render()
}

/// Whether nothing else is looked at beside it.
fn is_alone(arg: &Arg) -> bool {
    arg.is_exclusive_set() || matches!(arg.get_action(), ArgAction::Help | ArgAction::Version)
}

/// An option or operand with a blank before it. The first operand, an address, may be left out only
/// for the sake of what is exclusive.
fn word(arg: &Arg) -> Vec<Inline> {
    let (before, after) = if arg.get_index() == Some(1) { (" ", "") } else { (" [", "]") };
    let more = if matches!(arg.get_action(), ArgAction::Append) { "..." } else { "" };
    let mut line = vec![roman(before)];
    line.extend(flag(arg));
    line.push(roman([after, more].concat()));
    line
}

/// `-t|--timeout TIME`, as far as it is there.
fn flag(arg: &Arg) -> Vec<Inline> {
    let mut line = Vec::new();
    if let Some(short) = arg.get_short() {
        line.extend([bold(format!("-{short}")), roman("|")]);
    }
    if let Some(long) = arg.get_long() {
        line.push(bold(format!("--{long}")));
    }
    if matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        line.extend((!arg.is_positional()).then(|| roman(" ")));
        line.extend(
            arg.get_value_names().unwrap_or_default().iter().map(|n| italic(n.to_string())),
        );
    }
    line
}

/// Indented text stays as it is broken into lines; other text has a paragraph in each line.
fn section((title, text): &Section) -> String {
    let kept = text.starts_with(' ');
    let mut roff = Roff::new();
    roff.control("SH", [*title]);
    if kept {
        roff.control("nf", []);
    }
    for line in text.lines() {
        match line {
            "" => roff.control("PP", []),
            line => roff.text([roman(line)]),
        };
    }
    if kept {
        roff.control("fi", []);
    }
    roff.render()
}
