"""Moves bytes both ways at once over one connection, and compares what arrived with what was sent.

`serve PORT` answers; `move PORT MIB` asks for that much, and sends as much."""

import hashlib
import os
import socket
import socketserver
import sys
import threading
import time

# sent again and again, from another place each time
NOISE = os.urandom(1 << 20)


def send(sock, mib):
    """Sends that much, then what it was, then the end."""
    digest = hashlib.sha256()
    for number in range(mib):
        at = number * 4099 % len(NOISE)
        for part in NOISE[at:], NOISE[:at]:
            digest.update(part)
            sock.sendall(part)
    sock.sendall(digest.digest())
    sock.shutdown(socket.SHUT_WR)


def receive(sock, mib):
    """Takes that much, what it should be, and the end."""
    digest, left = hashlib.sha256(), mib << 20
    while left:
        part = sock.recv(min(left, 1 << 18))
        assert part, f"ended {left} bytes early"
        digest.update(part)
        left -= len(part)
    said = exactly(sock, 32)
    assert said == digest.digest(), "other bytes arrived"
    assert sock.recv(1) == b"", "more arrived"


def exactly(sock, many):
    data = b""
    while len(data) < many:
        part = sock.recv(many - len(data))
        assert part, f"ended after {len(data)} bytes"
        data += part
    return data


class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        mib = int.from_bytes(exactly(self.request, 8), "big")
        both(self.request, mib)


def both(sock, mib):
    sender = threading.Thread(target=send, args=(sock, mib))
    sender.start()
    receive(sock, mib)
    sender.join()


def move(mib):
    with socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=60) as sock:
        began = time.monotonic()
        sock.sendall(mib.to_bytes(8, "big"))
        both(sock, mib)
        took = time.monotonic() - began
    print(f"{took:.2f} s, {mib / took:.0f} MiB/s each way")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


if sys.argv[1] == "serve":
    Server(("127.0.0.1", int(sys.argv[2])), Answer).serve_forever()
else:
    move(int(sys.argv[3]))
