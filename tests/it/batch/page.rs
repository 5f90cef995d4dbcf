//! `--html`: the page, as a parser and as a browser see it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::super::support::Ran;
use super::super::support::fleet::Fleet;
use super::nobody;

/// Reads the page as a browser does: the elements that there are, and their text.
const PAGE: &str = r#"
import sys, html.parser
class Page(html.parser.HTMLParser):
    tags, open = {}, []
    def handle_starttag(self, tag, attributes):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attributes:
            assert name not in ("src", "href", "onclick", "onerror"), (tag, name)
            assert "url(" not in (value or ""), value
        self.open.append(tag)
    def handle_endtag(self, tag):
        while self.open.pop() != tag: pass
    def handle_data(self, data):
        if "pre" in self.open: print("pre:", data.strip())
page = Page()
page.feed(open(sys.argv[1], encoding="utf-8").read())
print(sorted(page.tags.items()))
"#;

#[test]
fn the_page_has_every_step_and_its_output_and_fetches_nothing() {
    let fleet = Fleet::start(2);
    let path = fleet.first().dir().join("page.html");
    let evil = "</pre><script src=//evil>x</script><img onerror=y src=z>";
    let args = ["--html", path.to_str().unwrap(), "-e", "TOKEN", "-s"];
    let steps = [format!("echo '{evil}'; echo \"$TOKEN\""), "-s".into(), "exit 3".into()];
    let batch = fleet
        .batch(&[&nobody()])
        .args(&["--retries", "0"])
        .args(&args)
        .args(&steps.each_ref().map(String::as_str));
    batch.env("TOKEN", "s3cret-value").run().expect(254);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("s3cret-value") && text.contains("default-src 'none'"), "{text}");
    let read = Command::new("python3").args(["-c", PAGE]).arg(&path).output().unwrap();
    let read = Ran::of(read).expect(0).text();
    assert_eq!(read.matches(&format!("pre: {evil}\n***\n")).count(), 2, "{read}");
    for count in ["('details', 5)", "('p', 6)", "('script', 1)", "('i', 5)"] {
        assert!(read.contains(count), "{count}: {read}");
    }
    assert!(!read.contains("'img'"), "{read}");
}

/// What a person does, typed and clicked by a script that stands behind the page's own, and what is seen then.
const PERSON: &str = r##"<output id=seen></output><script>
const seen = [], hosts = [...document.querySelectorAll(".host")];
const shown = () => hosts.filter(host => host.getClientRects().length > 0).length;
const open = () => document.querySelectorAll("details[open]").length;
const type = text => { q.value = text; q.dispatchEvent(new Event("input")); return shown(); };
seen.push(["fetched", performance.getEntriesByType("resource").length]);
seen.push(["at first", shown()], ["unfolded", open()], ["from the address", q.value]);
seen.push(["needle", type("needle-2")], ["told", document.getElementById("n").textContent]);
seen.push(["in the address", location.hash], ["verdict", type("unreachable")], ["none", type("no such text")]);
seen.push(["all again", type("")]);
document.querySelector("button.failed").click();
seen.push(["button", shown()]);
document.querySelector("button.failed").click();
seen.push(["button again", shown()]);
hosts[1].querySelector("summary").click();
hosts[1].querySelector(".step summary").click();
seen.push(["unfolded by clicks", open()], ["seen", hosts[1].querySelector("pre").getClientRects().length]);
document.getElementById("seen").textContent = JSON.stringify(seen);
</script>"##;

/// The browser that is here.
fn browser() -> Option<&'static str> {
    let runs = |name: &&str| {
        let mut asked = Command::new(name);
        asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        asked.status().is_ok_and(|status| status.success())
    };
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(runs)
}

/// What a browser makes of the page at `url`.
fn dump(browser: &str, home: &Path, url: &str) -> String {
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", home.display())).arg(url).env("HOME", home);
    Ran::of(command.stdin(Stdio::null()).output().unwrap()).expect(0).text()
}

#[test]
fn in_a_browser_the_page_fetches_nothing_and_can_be_searched_and_unfolded() {
    let Some(browser) = browser() else {
        println!("no browser is installed (Debian: chromium); the page was not looked at");
        return;
    };
    let fleet = Fleet::start(3);
    let dir = fleet.first().dir();
    let path = dir.join("page.html");
    let step = format!(
        "if mkdir {}/1; then echo 'needle'-1; elif mkdir {0}/2; then echo 'needle'-2; exit 3; else echo x; fi",
        dir.display()
    );
    let args =
        ["-j", "1", "--retries", "0", "--html", path.to_str().unwrap(), "-s", &step, "-s", "true"];
    fleet.batch(&[&nobody()]).args(&args).run().expect(254);
    fs::write(&path, fs::read_to_string(&path).unwrap() + PERSON).unwrap();
    let home = tempfile::tempdir().unwrap();
    let url = format!("file://{}", path.display());
    let seen = |url: &str| {
        let page = dump(browser, home.path(), url);
        let told =
            page.split("<output id=\"seen\">").nth(1).unwrap().split("</output>").next().unwrap();
        serde_json::from_str::<Value>(told).unwrap()
    };
    let expected = json!([
        ["fetched", 0],
        ["at first", 4],
        ["unfolded", 0],
        ["from the address", ""],
        ["needle", 1],
        ["told", "1 of 4 hosts"],
        ["in the address", "#needle-2"],
        ["verdict", 1],
        ["none", 0],
        ["all again", 4],
        ["button", 1],
        ["button again", 4],
        ["unfolded by clicks", 2],
        ["seen", 1]
    ]);
    assert_eq!(seen(&url), expected);
    let found = seen(&format!("{url}#needle-1"));
    assert_eq!(
        (&found[1], &found[3]),
        (&json!(["at first", 1]), &json!(["from the address", "needle-1"]))
    );
}
