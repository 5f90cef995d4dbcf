use super::*;

fn parse(text: &str) -> Result<KeyOptions, OptionError> {
    KeyOptions::parse(text, Permits { environment: true })
}

fn good(text: &str) -> KeyOptions {
    parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn names_are_read_in_any_case() {
    let options = good(r#"ReStRiCt,PTY,No-X11-Forwarding,COMMAND="echo Hi""#);
    assert_eq!(options.command.as_deref(), Some("echo Hi"));
    assert!(options.restrict && !options.no_pty);
}

#[test]
fn a_value_holds_blanks_commas_and_escaped_quotes() {
    for (text, command) in [
        (r#"command="a b,c # d""#, "a b,c # d"),
        (r#"command="say \"a b\"""#, r#"say "a b""#),
        (r#"command="\"""#, r#"""#),
        (r#"command="a\\b \n""#, r"a\\b \n"),
        (r#"command="end\\"",pty"#, r#"end\""#),
        ("command=\"a\tb\"", "a\tb"),
    ] {
        assert_eq!(good(text).command.as_deref(), Some(command), "{text}");
    }
}

#[test]
fn the_order_of_flags_counts() {
    assert!(good("restrict").no_pty && !good("restrict,pty").no_pty);
    assert!(good("pty,restrict").no_pty && good("no-pty").no_pty && !good("no-pty").restrict);
    assert!(good("no-touch-required").no_touch_required && good("verify-required").verify_required);
}

#[test]
fn what_there_is_nothing_of_is_taken() {
    for text in [
        "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,no-user-rc",
        "port-forwarding,agent-forwarding,X11-forwarding,user-rc",
        r#"permitopen="a:1",permitopen="b:2",permitlisten="80",tunnel="0""#,
    ] {
        assert_eq!(good(text), KeyOptions::default(), "{text}");
    }
}

#[test]
fn who_signs_certificates() {
    assert_eq!(good("cert-authority").authority, Some(Authority { principals: None }));
    for text in [r#"cert-authority,principals="a,b""#, r#"principals="a,b",cert-authority"#] {
        let principals = good(text).authority.unwrap().principals.unwrap();
        assert_eq!(principals, ["a", "b"], "{text}");
    }
}

#[test]
fn the_earliest_end_and_the_first_setting_count() {
    let options = good(r#"expiry-time="20300101Z",expiry-time="20290101Z""#);
    assert_eq!(options.expires, Some(parse_time("20290101Z").unwrap()));
    let options = good(r#"environment="A=1 2",environment="A=3",environment="B=""#);
    assert_eq!(options.environment, [("A".into(), "1 2".into()), ("B".into(), String::new())]);
}

#[test]
fn a_line_with_an_option_that_is_not_honoured_in_full_is_refused() {
    use OptionError as E;
    let unknown = |name: &str| E::Unknown(name.into());
    for (text, error) in [
        ("", E::Missing),
        ("restrict,", E::Missing),
        (",restrict", E::Missing),
        ("restrict,,pty", E::Missing),
        ("=\"x\"", E::Missing),
        ("unheard-of", unknown("unheard-of")),
        ("unheard-of=\"x\"", unknown("unheard-of")),
        ("no-restrict", unknown("no-restrict")),
        ("no-cert-authority", unknown("no-cert-authority")),
        ("no-no-pty", unknown("no-no-pty")),
        ("command", E::Value("command".into())),
        ("command=ls", E::Value("command".into())),
        ("command=\"ls", E::Value("command".into())),
        ("command=\"ls\"x", E::Surplus("command".into(), "x".into())),
        ("restrict\"x\"", E::Surplus("restrict".into(), "\"x\"".into())),
        ("restrict=\"x\"", E::Surplus("restrict".into(), "=".into())),
        ("command=\" \"", E::NoCommand),
        ("command=\"a\",command=\"a\"", E::Twice("command")),
        ("from=\"*\",from=\"*\"", E::Twice("from")),
        ("from=\"\"", E::From(AddressesError::Empty)),
        ("from=\"10.1\"", E::From(AddressesError::NotAnAddress("10.1".into()))),
        ("expiry-time=\"never\"", E::Expiry(NotATime("never".into()))),
        ("environment=\"A\"", E::Setting("A".into())),
        ("environment=\"=b\"", E::Setting("=b".into())),
        ("environment=\"A B=c\"", E::Setting("A B=c".into())),
        ("environment=\"REXEC_MARK=0\"", E::Setting("REXEC_MARK=0".into())),
        ("environment=\"SSH_ORIGINAL_COMMAND=\"", E::Setting("SSH_ORIGINAL_COMMAND=".into())),
        ("principals=\"a\"", E::Principals),
        ("cert-authority,principals=\"a,\"", E::NoPrincipals),
        ("cert-authority,principals=\"a\",principals=\"b\"", E::Twice("principals")),
        ("command=\"\u{fffd}\"", E::NotText),
        ("command=\"a\rb\"", E::NotText),
    ] {
        assert_eq!(parse(text), Err(error), "{text}");
    }
    let refused = KeyOptions::parse("environment=\"A=1\"", Permits::default());
    assert_eq!(refused, Err(E::Environment));
}

#[test]
fn a_key_counts_until_its_end_and_from_where_it_may_come() {
    let options = good(r#"expiry-time="20300101000000Z",from="10.0.0.0/8""#);
    let end = parse_time("20300101Z").unwrap();
    let (inside, outside) = (Some([10, 1, 1, 1].into()), Some(IpAddr::from([11, 1, 1, 1])));
    assert_eq!(options.admit(inside, end), Ok(()));
    assert_eq!(options.admit(inside, end + Duration::from_secs(1)), Err(Barred::Expired));
    assert_eq!(options.admit(outside, end), Err(Barred::From(outside.unwrap())));
    assert_eq!(options.admit(None, end), Ok(()), "a unix socket has no address");
}
