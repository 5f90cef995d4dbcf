#!/usr/bin/env python3
"""A client of the rexec protocol over a unix socket, written from docs/protocol.md alone.

protocol_client.py SOCKET PROGRAM [ARGUMENT...] runs the words exactly, with this stdin, goes on after a cut link, and
exits as the command did, or with 255 not reached, 254 never started, 253 cannot know, 252 not whole, 251 stopped.
"""
import collections, hashlib, json, os, select, socket, struct, sys, time
HEARTBEAT, SILENCE, PIECE, PATIENCE = 15, 45, 65536, 30

class End(Exception):
    """The last word: exit status and why."""
class Link:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        peer = struct.unpack("3i", self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if peer[1] not in (0, os.geteuid()):
            raise End(255, "the socket belongs to another user")
        self.buffer, self.heard, self.said = bytearray(), time.monotonic(), time.monotonic()

    def send(self, body=b"", **header):
        text = json.dumps(dict(header, size=len(body))).encode()
        self.socket.sendall(struct.pack("<I", len(text)) + text + body)
        self.said = time.monotonic()

    def send_piece(self, offset, digest, piece):
        self.send(piece, type="stdin" if piece else "stdin_end", offset=offset, hash=digest)

    def frames(self):  # the whole frames that one read brings
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.heard, self.buffer = time.monotonic(), self.buffer + data
        while len(self.buffer) >= 4:
            start = 4 + struct.unpack_from("<I", self.buffer)[0]
            header = json.loads(self.buffer[4:start]) if len(self.buffer) >= start else None
            if header is None or len(self.buffer) < start + header.get("size", 0):
                return
            end = start + header.get("size", 0)
            yield header, bytes(self.buffer[start:end])
            del self.buffer[:end]

class Run:
    def __init__(self, words):
        self.words, self.id, self.first_sent = words, os.urandom(16).hex(), None
        self.received = self.written = self.acked = 0
        self.streams = {name: [0, hashlib.sha256()] for name in ("stdout", "stderr")}
        self.pending, self.verdict = collections.deque(), None  # seq, descriptor, bytes still to be written
        self.kept = collections.deque()  # pieces that the server may not have; an empty one is the end
        self.input, self.read, self.granted, self.wants_input, self.started = hashlib.sha256(), 0, 0, True, False

    def ask(self, link):
        now = time.monotonic()
        age = 0 if self.first_sent is None else max(1, int(1000 * (now - self.first_sent)))
        self.first_sent, self.granted, self.acked = self.first_sent or now, 0, 0
        link.send(type="hello", client="protocol_client.py")
        words = b"".join(os.fsencode(word) + b"\0" for word in self.words)
        link.send(words, type="run", id=self.id, form="argv", words=len(self.words), stdin=True,
                  first_sent_ms_ago=age, after=self.received, was_started=self.started)

    def take(self, link, header, body):
        kind = header["type"]
        if kind in ("started", "grant"):
            self.granted = header.get("to", header.get("stdin_grant"))
            offset, self.started = header.get("taken", header.get("stdin_offset")), True
            while self.kept and self.kept[0][2] and self.kept[0][0] + len(self.kept[0][2]) <= offset:
                self.kept.popleft()
        if kind == "started":
            if header["hash"] != "sha256" or offset != (self.kept[0][0] if self.kept else self.read):
                raise End(253, "the server's standard input is another one")
            for piece in self.kept:
                link.send_piece(*piece)
        elif kind == "stdin_closed":
            self.wants_input = False
        elif kind in ("refused", "not_started"):
            raise End(254, header["text"])
        elif kind in ("lost", "gap") or header.get("code") == "taken_over":
            raise End(253, f"{kind}: {header.get('text')}")
        elif kind == "error":
            raise ConnectionError(header["text"])
        elif kind in ("output", "mark", "verdict"):
            self.received += 1
            if header["seq"] != self.received:
                raise End(252, "a frame is missing")
            if kind == "output":
                stream = self.streams[header["stream"]]
                offset, stream[0] = stream[0], stream[0] + len(body)
                stream[1].update(body)
                if (header["offset"], header["hash"]) != (offset, stream[1].hexdigest()):
                    raise End(252, "the output was altered")
            self.verdict = header if kind == "verdict" else None
            self.pending.append([header["seq"], 1 + (header.get("stream") == "stderr"), memoryview(body)])

    def turn(self, link):
        """Waits for frames, input, room for output, or time; then says what there is to say."""
        inputs = [link.socket] + [0] * (self.wants_input and self.read < self.granted)
        ready, room, _ = select.select(inputs, [p[1] for p in list(self.pending)[:1]], [], HEARTBEAT / 3)
        for header, body in link.frames() if link.socket in ready else ():
            self.take(link, header, body)
        if 0 in ready and self.wants_input:
            data = os.read(0, min(PIECE, self.granted - self.read))
            self.input.update(data)
            self.kept.append((self.read, self.input.hexdigest(), data))
            self.read, self.wants_input = self.read + len(data), bool(data)
            link.send_piece(*self.kept[-1])
        if room:  # A pipe that is ready takes 4096 bytes without blocking.
            self.pending[0][2] = self.pending[0][2][os.write(room[0], self.pending[0][2][:4096]):]
        while self.pending and not self.pending[0][2]:
            self.written = self.pending.popleft()[0]
        if self.written > self.acked and (not self.pending or self.written >= self.acked + 8):
            self.acked = self.written
            link.send(type="ack", seq=self.acked)
        if self.verdict and not self.pending:
            self.judge()
        if time.monotonic() - link.said >= HEARTBEAT:
            link.send(type="heartbeat")
        if time.monotonic() - link.heard >= SILENCE:
            raise ConnectionError("nothing was heard")

    def judge(self):
        for name, (size, digest) in self.streams.items():
            end = self.verdict[name]
            if (end["size"], end["hash"]) != (size, digest.hexdigest()) or end["end"] not in ("eof", "held"):
                raise End(252, f"{name} is not whole")
        end = self.verdict["end"]
        if self.verdict["stopped"] or not end:
            raise End(251, f"stopped: {self.verdict['stopped']}")
        raise End(end["exited"]["code"] if "exited" in end else 128 + end["signaled"]["signal"], None)

def main(path, *words):
    run, lost_at = Run(words), None
    while True:
        try:
            link = Link(path)
            run.ask(link)
            while True:
                run.turn(link)
                lost_at = None
        except (ConnectionError, FileNotFoundError) as why:
            lost_at = lost_at or time.monotonic()
            if run.first_sent is None or time.monotonic() - lost_at > PATIENCE:
                raise End(255 if run.first_sent is None else 253, why)
            time.sleep(0.05)

try:
    main(*sys.argv[1:])
except End as end:
    print(f"protocol_client.py: {end.args[1]}\n" if end.args[1] else "", end="", file=sys.stderr)
    sys.exit(end.args[0])
