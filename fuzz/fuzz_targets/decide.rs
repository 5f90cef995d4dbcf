//! Under an allow-list nothing is run but what one of its patterns fits, and that by no shell, whatever the
//! words, the text, the folder and the variables.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rexec::proto::header::Form;
use rexec::runs::judged::How;
use rexec::runs::shares::Usage;
use rexec::server::policy::{Asked, Command, Policy, Rights, Subject, decide};

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let text = "[rule.r]\nfor = [\"local\"]\nallow = [[\"git\", \"pull\"], [\"restart\", \"{s:[a-z-]+}\"]]\n\
                cwd = [\"/srv\"]\nenv = [\"LEVEL\"]\n";
    Policy::parse(text).expect("the policy of this target")
});

fn is_allowed(words: &[Vec<u8>]) -> bool {
    let words: Vec<&[u8]> = words.iter().map(|word| &**word).collect();
    let is_service =
        |word: &[u8]| !word.is_empty() && word.iter().all(|b| b.is_ascii_lowercase() || *b == b'-');
    match words[..] {
        [b"git", b"pull"] => true,
        [b"restart", service] => is_service(service),
        _ => false,
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((flags, rest)) = input.split_first() else { return };
    let mut parts = rest.split(|b| *b == 0);
    let cwd = (flags & 1 != 0).then(|| parts.next().unwrap_or_default());
    let env: Vec<&[u8]> = if flags & 2 == 0 { vec![] } else { parts.next().into_iter().collect() };
    let form = match flags & 12 {
        0 => Form::Argv,
        4 => Form::Script,
        _ => Form::Shell,
    };
    let words: Vec<&[u8]> = match form {
        Form::Argv => parts.collect(),
        Form::Shell => parts.take(1).collect(),
        Form::Script => vec![],
    };
    let to_path =
        |bytes| Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes));
    let command = Command { form, words: words.clone(), cwd: cwd.map(to_path), env: env.clone() };
    let subject = Subject { identity: "local:0", rights: Rights::default() };
    let Ok(allowed) = decide(&POLICY, subject, &Asked::Run(command), Usage::default()) else {
        return;
    };
    assert_eq!(allowed.judged.how, How::Argv);
    assert!(cwd.is_none_or(|cwd| cwd == b"/srv") && env.iter().all(|name| *name == b"LEVEL"));
    let run: Vec<Vec<u8>> = match form {
        Form::Argv => words.iter().map(|word| word.to_vec()).collect(),
        Form::Shell => {
            let split = rexec::runs::judged::split(words[0]).expect("what was allowed has words");
            split.into_iter().map(String::into_bytes).collect()
        }
        Form::Script => panic!("a script was allowed"),
    };
    assert!(is_allowed(&run), "{run:?}");
});
