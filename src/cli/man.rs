//! The manual pages, from the same definitions as the help.

use clap::{Arg, ArgAction};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// A title and a text.
pub(super) type Section = (&'static str, String);

/// The page in roff (`man(7)`). Subcommands stand in it with all of their options: one page has everything.
pub(super) fn page(mut definition: clap::Command, sections: &[Section]) -> String {
    let page = Man::new(definition.clone());
    definition.build();
    let commands = subcommands(&definition);
    [
        rendered(|w| page.render_title(w)),
        rendered(|w| page.render_name_section(w)),
        synopsis(&definition, &commands),
        rendered(|w| page.render_description_section(w)),
        rendered(|w| page.render_options_section(w)),
        commands_section(&commands),
        sections.iter().map(section).collect(),
    ]
    .concat()
}

fn rendered(render: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = render(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Every subcommand that does something itself, however deep it is.
fn subcommands(definition: &clap::Command) -> Vec<&clap::Command> {
    let wanted = |command: &&clap::Command| !command.is_hide_set() && command.get_name() != "help";
    let visible = definition.get_subcommands().filter(wanted);
    let deep = |command| match subcommands(command) {
        own if own.is_empty() => vec![command],
        own => own,
    };
    visible.flat_map(deep).collect()
}

/// What each subcommand does, and its options.
fn commands_section(commands: &[&clap::Command]) -> String {
    if commands.is_empty() {
        return String::new();
    }
    let heading = |kind: &str, text: &str| Roff::new().control(kind, [text]).render();
    let mut text = heading("SH", "COMMANDS");
    for command in commands {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let options = rendered(|w| Man::new((*command).clone()).render_options_section(w));
        text += &heading("SS", name_of(command));
        text += &Roff::new().text([roman(about)]).render();
        text.extend(options.lines().filter(|l| *l != ".SH OPTIONS").map(|l| format!("{l}\n")));
    }
    text
}

/// The words by which a command is called.
fn name_of(command: &clap::Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

/// Every option with the name of its value; what is exclusive, and each subcommand, stands in lines of its own.
fn synopsis(definition: &clap::Command, commands: &[&clap::Command]) -> String {
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text(usage(definition));
    for command in commands {
        roff.control("br", []).text(usage(command));
    }
    for arg in visible(definition).filter(|arg| is_alone(arg)) {
        let line = [bold(name_of(definition)), roman(" ")].into_iter().chain(flag(arg));
        roff.control("br", []).text(line.collect::<Vec<_>>());
    }
    roff.render()
}

fn usage(command: &clap::Command) -> Vec<Inline> {
    let together = visible(command).filter(|arg| !is_alone(arg));
    let (operands, options): (Vec<_>, Vec<_>) = together.partition(|arg| arg.is_positional());
    let words = options.into_iter().chain(operands).flat_map(word);
    [bold(name_of(command))].into_iter().chain(words).collect()
}

fn visible(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set())
}

/// Whether nothing else is looked at beside it.
fn is_alone(arg: &Arg) -> bool {
    arg.is_exclusive_set() || matches!(arg.get_action(), ArgAction::Help | ArgAction::Version)
}

/// An option or operand with a blank before it. The first operand, an address, may be left out only
/// for the sake of what is exclusive.
fn word(arg: &Arg) -> Vec<Inline> {
    let is_address = arg.get_index() == Some(1) && matches!(arg.get_action(), ArgAction::Set);
    let is_needed = is_address || arg.is_required_set();
    let (before, after) = if is_needed { (" ", "") } else { (" [", "]") };
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
