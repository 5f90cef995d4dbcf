//! Whose the other end of a loopback connection is: `/proc/net/tcp` and `/proc/net/tcp6` list every TCP
//! socket of this network namespace with its owner (Linux, Documentation/networking/proc_net_tcp.rst).

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The kernel hands the tables out in pieces, and passes over a row when one before it goes
/// meanwhile; this is how often it is looked for before it counts as missing.
const LOOKS: usize = 3;
/// Bytes asked for at once.
const PIECE: usize = 65_536;
/// States (Linux, `include/net/tcp_states.h`) of a socket that is connected and has at most shut down
/// its own writing side: established, FIN-WAIT-1, FIN-WAIT-2. One that is still connecting
/// may have found an older socket in its place.
const CONNECTED: [&str; 3] = ["01", "04", "05"];

/// A client's socket, by its addresses. On a socket for both families 127.0.0.1 shows as
/// ::ffff:127.0.0.1; here it is always the former.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    local: SocketAddr,
    remote: SocketAddr,
}

/// One row of a table.
#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    pair: Pair,
    state: &'a str,
    uid: u32,
    /// 0 if no process has the socket open.
    inode: u64,
}

impl Pair {
    /// The client's socket that is bound to `local` and connected to `remote`.
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        Self { local: canonical(local), remote: canonical(remote) }
    }

    /// Whether both ends are on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.local.ip().is_loopback() && self.remote.ip().is_loopback()
    }

    /// The uid of the connected socket with these addresses; none if no process has it open. Takes as
    /// long as the machine has sockets: run it off the runtime's workers.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub(super) fn holder(&self) -> io::Result<Option<u32>> {
        for _ in 0..LOOKS {
            for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
                let file = match File::open(table) {
                    // A kernel without IPv6.
                    Err(e) if e.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {
                        continue;
                    }
                    opened => opened?,
                };
                if let Some(uid) = self.find(BufReader::with_capacity(PIECE, file))? {
                    return Ok(Some(uid));
                }
            }
        }
        Ok(None)
    }

    fn find(&self, table: impl BufRead) -> io::Result<Option<u32>> {
        for line in table.lines() {
            if let Some(row) = parse(&line?)
                && row.pair == *self
                && row.inode != 0
                && CONNECTED.contains(&row.state)
            {
                return Ok(Some(row.uid));
            }
        }
        Ok(None)
    }
}

/// None for the headline.
fn parse(line: &str) -> Option<Row<'_>> {
    let mut fields = line.split_ascii_whitespace();
    let local = address(fields.nth(1)?)?;
    let remote = address(fields.next()?)?;
    let state = fields.next()?;
    // Behind the queues, the timer and the retransmissions.
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Row { pair: Pair::new(local, remote), state, uid, inode })
}

/// `0100007F:1F90`: each four bytes of the address in network order, printed as a number of this
/// machine; the port as a plain number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(ip)?).into(),
        32 => {
            let mut octets = [0; 16];
            for (at, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(ip.get(8 * at..8 * at + 8)?)?);
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const HEADLINE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn pair(local: &str, remote: &str) -> Pair {
        Pair::new(local.parse().unwrap(), remote.parse().unwrap())
    }

    /// A row as the kernel of this machine prints it.
    fn row(local: [&[u8]; 2], state: &str, uid: u32, inode: u64) -> String {
        let ip = |octets: &[u8]| {
            octets
                .chunks_exact(4)
                .map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap())))
                .collect::<String>()
        };
        let [local, remote] = local.map(ip);
        format!(
            "   7: {local}:C350 {remote}:1F90 {state} 00000000:00000000 00:00000000 00000000 {uid:5}        0 {inode} 1 0000000000000000 20 4 30 10 -1\n"
        )
    }

    #[test]
    fn each_family_is_read() {
        let v4 = [127, 0, 0, 1];
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        let v6 = Ipv6Addr::LOCALHOST.octets();
        for (octets, client) in [
            (&v4[..], pair("127.0.0.1:50000", "127.0.0.1:8080")),
            (&mapped, pair("127.0.0.1:50000", "[::ffff:127.0.0.1]:8080")),
            (&v6, pair("[::1]:50000", "[::1]:8080")),
        ] {
            let table = format!("{HEADLINE}{}", row([octets, octets], "01", 1000, 42));
            assert_eq!(client.find(table.as_bytes()).unwrap(), Some(1000));
            let other = pair("127.0.0.1:50001", "127.0.0.1:8080");
            assert_eq!(other.find(table.as_bytes()).unwrap(), None);
        }
    }

    #[test]
    fn the_servers_own_end_is_not_the_clients() {
        let v4 = &[127, 0, 0, 1][..];
        let table = row([v4, v4], "01", 1000, 42);
        let servers = pair("127.0.0.1:8080", "127.0.0.1:50000");
        assert_eq!(servers.find(table.as_bytes()).unwrap(), None);
    }

    #[test]
    fn a_socket_that_nobody_holds_or_that_still_connects_has_no_holder() {
        let v4 = &[127, 0, 0, 1][..];
        let client = pair("127.0.0.1:50000", "127.0.0.1:8080");
        for (state, inode, holder) in [
            ("01", 1, Some(7)),
            ("04", 1, Some(7)),
            ("05", 1, Some(7)),
            ("05", 0, None),
            ("01", 0, None),
            ("02", 1, None),
            ("06", 1, None),
            ("08", 1, None),
        ] {
            let table = row([v4, v4], state, 7, inode);
            assert_eq!(client.find(table.as_bytes()).unwrap(), holder, "{state} {inode}");
        }
    }

    #[test]
    fn what_is_no_row_is_passed_over() {
        for line in ["", HEADLINE, "7:", "7: 0100007F:1F90 0100007F:1F90 01 0 0 0 -1 0 1"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
        for text in ["", ":", "0100007F", "0100007:1", "0100007F:10000", "zz00007F:1", "é100007F:1"]
        {
            assert_eq!(address(text), None, "{text:?}");
        }
    }

    #[test]
    fn this_process_holds_its_own_connections() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(listen).unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (served, from) = listener.accept().unwrap();
            let pair = Pair::new(from, served.local_addr().unwrap());
            assert!(pair.is_loopback());
            assert_eq!(pair.holder().unwrap(), Some(crate::sys::fs::euid()));
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(pair.holder().unwrap(), Some(crate::sys::fs::euid()), "half closed");
            drop(client);
            // A child of another test's has it too, until it executes its program.
            let late = Instant::now() + Duration::from_secs(60);
            while pair.holder().unwrap().is_some() {
                assert!(Instant::now() < late, "closed");
            }
        }
    }

    #[test]
    fn a_client_for_both_families_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), to.port());
        let _client = std::net::TcpStream::connect(mapped).unwrap();
        let (_served, from) = listener.accept().unwrap();
        assert_eq!(Pair::new(from, to).holder().unwrap(), Some(crate::sys::fs::euid()));
    }
}
