use super::*;

const A: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
const B: &str = "SHA256:AAAAQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

fn names<'a>(policy: &'a Policy, identity: &'a str) -> Vec<&'a str> {
    policy.rules_for(identity).map(|rule| rule.name.as_str()).collect()
}

#[test]
fn rules_are_for_identities_groups_and_those_whom_no_rule_names() {
    let text = format!(
        "[identity.ci]\nkeys = [\"{A}\"]\n[group.bots]\nmembers = [\"ci\", \"{B}\"]\n\
         [rule.one]\nfor = [\"ci\"]\n[rule.all-bots]\nfor = [\"@bots\"]\n\
         [rule.here]\nfor = [\"local\"]\n[rule.rest]\nfor = [\"*\"]\n"
    );
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(names(&policy, &format!("key:{A}")), ["all-bots", "one"]);
    assert_eq!(names(&policy, &format!("key:{B}")), ["all-bots"]);
    assert_eq!(names(&policy, "local:0"), ["here"]);
    assert_eq!(names(&policy, "local:1000"), ["here"]);
    assert_eq!(names(&policy, "locals:1"), ["rest"]);
    assert_eq!(names(&policy, "key:SHA256:other"), ["rest"]);
}

#[test]
fn without_a_rule_there_is_none() {
    assert!(names(&Policy::parse("listen = [\"a:1\"]").unwrap(), "local:0").is_empty());
    let policy = Policy::parse(&format!("[rule.a]\nfor = [\"{A}\"]\n")).unwrap();
    assert!(names(&policy, "local:0").is_empty());
}

#[test]
fn of_each_ceiling_the_lowest_counts() {
    let text = "[rule.a]\nfor = [\"*\"]\ndeadline = \"1m\"\noutput = \"1M\"\nmemory = \"1G\"\nnice = 5\nfolder = \"/a\"\n\
                [rule.b]\nfor = [\"*\"]\ndeadline = 30\noutput = \"2M\"\ncpu = 10\nnice = 10\nfolder = \"/b\"\n";
    let policy = Policy::parse(text).unwrap();
    let all = policy.rules_for("x").fold(Ceilings::default(), |c, rule| c.lower(&rule.ceilings));
    assert_eq!(all.deadline, Some(std::time::Duration::from_secs(30)));
    assert_eq!((all.output, all.limits.memory), (Some(1 << 20), Some(1 << 30)));
    assert_eq!((all.limits.cpu, all.limits.nice), (Some(10), Some(10)));
    assert_eq!(all.folder, Some("/a".into()));
}

#[test]
fn text_without_quotes_is_told_so_and_where() {
    let quotes = "text stands in quotes, such as \"127.0.0.1:8080\"";
    for (text, told) in [
        ("listen = 127.0.0.1:8080", Some("1:10")),
        ("verbose = true\nlisten = [127.0.0.1:8080, \"a:1\"]", Some("2:11")),
        ("listen = [::1]:8080", Some("1:11")),
        ("users = alice,bob", Some("1:9")),
        ("idle-timeout = 10m # soon", Some("1:16")),
        ("max-runs = 1 2", None),
        ("max-runs = 012", None),
        ("name = ", None),
        ("listen \"a:1\"", None),
        ("name = \"open", None),
        ("[rule.a]\nfor = [\"*\"]\nruns = true", None),
    ] {
        let mistake = Policy::parse(text).unwrap_err().to_string();
        match told {
            Some(at) => assert_eq!(mistake, format!("{at}: {quotes}"), "{text}"),
            None => assert!(!mistake.contains("quotes"), "{text}: {mistake}"),
        }
    }
}
