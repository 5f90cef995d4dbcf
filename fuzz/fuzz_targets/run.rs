//! A request that is accepted says exactly what its body says: one line of header, then the body.

#![no_main]

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rexec::exec::spec::{Program, Spec};
use rexec::proto::frame::BODY_LIMIT;
use rexec::proto::header::{ClientHeader, Form, RunRequest};
use rexec::proto::id::ID_LIMIT;
use rexec::proto::strings;
use rexec::runs::request::{LONGEST_GRACE, Request};

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let body = data.get(end + 1..).unwrap_or_default();
    let Ok(ClientHeader::Run(header)) = serde_json::from_slice(&data[..end]) else { return };
    if body.len() > BODY_LIMIT {
        return;
    }
    let Ok(request) = Request::parse((*header).clone(), Bytes::copy_from_slice(body)) else {
        return;
    };
    assert!((1..=ID_LIMIT).contains(&request.id.as_str().len()));
    assert!(header.must.iter().all(|field| RunRequest::KNOWN.contains(&field.as_str())));
    assert!(request.grace() <= LONGEST_GRACE);
    let spec = request.spec(PathBuf::from("/bin/sh"));
    assert_eq!(spec.env.len() as u64, header.env);
    assert_eq!(spec.cwd.is_some(), header.cwd);
    assert_eq!(normal(body, &header), rebuilt(&spec, header.form));
    let _ = request.command();
    let again = Request::parse((*header).clone(), Bytes::copy_from_slice(body)).unwrap();
    assert!(again.terms.differing(&request.terms).is_empty());
});

/// The body with `=` after settings that have none: both mean the empty value.
fn normal(body: &[u8], header: &RunRequest) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 16);
    let count = header.words + header.env + u64::from(header.cwd);
    for (n, string) in (0u64..).zip(strings::split(body, count).unwrap()) {
        let setting = (header.words..header.words + header.env).contains(&n);
        let bare = setting && !string.contains(&b'=');
        strings::push(&mut out, &if bare { [string, b"="].concat() } else { string.to_vec() });
    }
    out
}

fn rebuilt(spec: &Spec, form: Form) -> Vec<u8> {
    let mut out = Vec::new();
    match &spec.program {
        Program::Shell { text, .. } => {
            assert_eq!(form, Form::Shell);
            strings::push(&mut out, text.as_bytes());
        }
        Program::Script { .. } => assert_eq!(form, Form::Script),
        Program::Argv { words } => {
            assert!(form == Form::Argv && !words.is_empty());
            words.iter().for_each(|word| strings::push(&mut out, word.as_bytes()));
        }
    }
    for (name, value) in &spec.env {
        strings::push(&mut out, &[name.as_bytes(), b"=", value.as_bytes()].concat());
    }
    if let Some(cwd) = &spec.cwd {
        strings::push(&mut out, cwd.as_os_str().as_bytes());
    }
    out
}
