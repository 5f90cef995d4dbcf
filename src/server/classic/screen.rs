//! What is no command: a web page can make a browser send almost anything to a loopback port, but it
//! comes as HTTP, TLS or STUN. The latter two hold NUL.

use super::COMMAND_LIMIT;

/// Methods of requests that a page can cause, and their like (RFC 9110, 9.3; RFC 5789).
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// Longest path of a file (`PATH_MAX` of Linux).
const PATH_LIMIT: usize = 4096;

/// Why a read closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("a command is longer than {COMMAND_LIMIT} bytes; use rexec, or pass a script's name")]
    TooLong,
    #[error("it sent a NUL byte, which no command has")]
    Nul,
    #[error("it sent what is not UTF-8")]
    NotUtf8,
    #[error("it sent what looks like HTTP; this is no web server")]
    Http,
}

/// The command of one read, stripped of white space.
pub(super) fn command(read: &[u8]) -> Result<&str, Refused> {
    if read.len() > COMMAND_LIMIT {
        return Err(Refused::TooLong);
    }
    if read.contains(&0) {
        return Err(Refused::Nul);
    }
    let text = std::str::from_utf8(read).map_err(|_| Refused::NotUtf8)?.trim();
    if is_http(text) { Err(Refused::Http) } else { Ok(text) }
}

/// A request line, or as much of one as the read holds: with a long path the version can come in
/// a later one.
fn is_http(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default();
    let begins = |method: &&str| {
        let rest = line.strip_prefix(method).and_then(|rest| rest.strip_prefix(' '));
        rest.is_some_and(is_target)
    };
    METHODS.iter().any(begins) || is_request_line(line)
}

/// `METHOD SP TARGET SP HTTP/…` (RFC 9112, 3), whatever the method: a page may choose one where it passes for this
/// machine's own (DNS rebinding). With a target that is too long for a path the version may be cut off.
fn is_request_line(line: &str) -> bool {
    let words: Vec<_> = line.split(' ').take(4).collect();
    let (method, target, version) = match words[..] {
        [method, target] => (method, target, ""),
        [method, target, version] => (method, target, version),
        _ => return false,
    };
    let is_upper = method.bytes().all(|b| b.is_ascii_uppercase());
    let is_whole = version.starts_with("HTTP/") && (is_target(target) || is_upper);
    let is_cut = "HTTP/".starts_with(version) && is_target(target) && target.len() > PATH_LIMIT;
    !method.is_empty() && (is_whole || is_cut)
}

/// The forms of a target that are no word of a likely command (RFC 9112, 3.2).
fn is_target(text: &str) -> bool {
    text.starts_with(['/', '*']) || text.starts_with("http://") || text.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_stripped() {
        for (read, text) in [
            ("ls -l\r\n", "ls -l"),
            ("\t  echo 'a b' \n", "echo 'a b'"),
            (" \r\n\t", ""),
            ("", ""),
            ("echo grüße\u{3000}", "echo grüße"),
            ("a\nb\n", "a\nb"),
        ] {
            assert_eq!(command(read.as_bytes()), Ok(text));
        }
    }

    #[test]
    fn commands_that_only_speak_of_http_are_commands() {
        for text in [
            "curl http://localhost/",
            "grep -r HTTP/1.1 .",
            "grep -r HTTP/1.1",
            "head /etc/passwd",
            "patch /tmp/a /tmp/b",
            "echo GET / HTTP/1.1",
            "printf 'GET / HTTP/1.1\\r\\n\\r\\n'",
            "GET",
            "GETTEXT /x",
            "ls /\nGET / HTTP/1.1",
        ] {
            assert_eq!(command(text.as_bytes()), Ok(text));
        }
    }

    #[test]
    fn http_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
            "POST /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nls",
            "\r\nPOST / HTTP/1.0\n",
            "OPTIONS * HTTP/1.1\r\n",
            "CONNECT example.com:443 HTTP/1.1\r\n",
            "GET http://example.com/ HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "patch / HTTP/1.1",
            "$(id) /x HTTP/1.1",
            "FOO ;id; HTTP/1.1",
            "GET /a-path-that-does-not-end-in-this-read",
            "POST /",
            "DELETE /x y",
        ] {
            assert_eq!(command(text.as_bytes()), Err(Refused::Http), "{text}");
        }
    }

    #[test]
    fn a_request_line_whose_end_comes_in_a_later_read_is_refused() {
        let long = format!("/;id;{}", "a".repeat(PATH_LIMIT));
        for text in [
            format!("FOO {long}"),
            format!("ls {long}"),
            format!("FOO {long} "),
            format!("FOO {long} HTT"),
            format!("FOO http:/{long}"),
        ] {
            assert_eq!(command(text.as_bytes()), Err(Refused::Http), "{text}");
        }
        for text in [
            format!("echo {long} | base64 -d"),
            format!("echo {}", &long[1..]),
            format!("ls {}", &long[..PATH_LIMIT]),
        ] {
            assert_eq!(command(text.as_bytes()), Ok(&*text));
        }
    }

    #[test]
    fn what_is_not_text_is_refused() {
        assert_eq!(command(b"ls\xff"), Err(Refused::NotUtf8));
        assert_eq!(command("ls é".as_bytes().split_last().unwrap().1), Err(Refused::NotUtf8));
        assert_eq!(command(b"ls\0"), Err(Refused::Nul));
        let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        let stun = b"\x00\x03\x00\x08\x21\x12\xa4\x42";
        assert_eq!(command(tls), Err(Refused::Nul));
        assert_eq!(command(stun), Err(Refused::Nul));
    }

    #[test]
    fn one_past_the_limit_is_refused() {
        let most = [b'a'; COMMAND_LIMIT];
        assert_eq!(command(&most).map(str::len), Ok(COMMAND_LIMIT));
        assert_eq!(command(&[b'a'; COMMAND_LIMIT + 1]), Err(Refused::TooLong));
    }

    #[test]
    fn every_reason_is_one_line() {
        for why in [Refused::TooLong, Refused::Nul, Refused::NotUtf8, Refused::Http] {
            assert_eq!(why.to_string().lines().count(), 1);
        }
    }
}
