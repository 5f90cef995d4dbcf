"""The tutorial's client: python3 -c CLIENT KIND PORT COMMAND... prints each body's size and hash.

With a uid as fourth argument of the form uid=N it becomes that user first."""
import hashlib, json, os, socket, struct, sys

kind, port, commands = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
if commands[0].startswith('uid='):
    os.setgroups([])
    uid = int(commands.pop(0)[4:])
    os.setgid(uid)
    os.setuid(uid)

phone = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
phone.settimeout(60)
phone.connect(('127.0.0.1', port))


def take(size):
    body = b''
    while len(body) < size:
        piece = phone.recv(min(size - len(body), 1024))
        if not piece:
            raise EOFError('the server has closed the connection')
        body += piece
    return body


for command in commands:
    phone.send(command.encode('utf-8'))
    if kind == 'json':
        header_size = struct.unpack('i', take(4))[0]
        header = json.loads(take(header_size).decode('utf-8'))
        assert list(header) == ['filename', 'hash', 'size'], header
        assert header['filename'] is None, header
        body = take(header['size'])
        assert header['hash'] == hashlib.sha256(body).hexdigest(), header
        # What the tutorial's server would have sent.
        again = json.dumps({'filename': None, 'hash': header['hash'], 'size': len(body)})
        assert len(again.encode('utf-8')) == header_size, header_size
    elif kind == 'length':
        body = take(struct.unpack('i', take(4))[0])
    else:
        body = phone.recv(1024)
        if not body:
            raise EOFError('the server has closed the connection')
    print(len(body), hashlib.sha256(body).hexdigest(), flush=True)
phone.close()
