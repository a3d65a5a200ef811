"""A gRPC client that tries the application out. Arguments: what to do, the port on this host."""

import hashlib
import os
import sys
import threading
import time

import grpc

AT_ONCE = 50
TALKS = 100
SIZES = [0, 1, 16383, 16384, 65536, 3 << 20]
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 8 << 20)]
channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[2]}", OPTIONS)


def same(found, want):
    assert found == want, f"found {found!r:.200}, expected {want!r:.200}"


def method(kind, name):
    return getattr(channel, kind)(f"/tests.App/{name}")


def unary(name, message=b"", **options):
    return method("unary_unary", name).with_call(message, **{"timeout": 30} | options)


def fails(code, call):
    try:
        call()
    except grpc.RpcError as why:
        same(why.code(), code)
        return why
    assert False, f"it did not end as {code}"


def messages():
    for size in SIZES:
        data = os.urandom(size)
        began = time.monotonic()
        answer, call = unary("digest", data)
        took = time.monotonic() - began
        same(answer, data[::-1])
        trailing = dict(call.trailing_metadata())
        same(trailing["digest"], hashlib.sha256(data).hexdigest())
        same(trailing["raw-bin"], bytes(range(256)))
        same(call.code(), grpc.StatusCode.OK)
    print(f"a message of {size >> 20} MiB each way in {took:.3f} s")


def streams():
    for many in [0, 1, 1000]:
        answers = method("unary_stream", "count")(b"%d" % many, timeout=30)
        same([int(answer) for answer in answers], list(range(many)))
        numbers = (b"%d" % number for number in range(many))
        same(int(method("stream_unary", "add")(numbers, timeout=30)), sum(range(many)))
    talk()


def talk():
    """Each message is sent when the one before was answered: neither side may hold one back."""
    heard = threading.Semaphore(1)

    def say():
        for number in range(TALKS):
            assert heard.acquire(timeout=20)
            yield b"%d" % number

    began = time.monotonic()
    answers = method("stream_stream", "talk")(say(), timeout=60)
    for number in range(TALKS):
        same(next(answers), b"%d heard" % number)
        heard.release()
    same(list(answers), [])
    print(f"{TALKS} messages there and back, one by one, in {time.monotonic() - began:.3f} s")


def errors():
    why = fails(grpc.StatusCode.NOT_FOUND, lambda: unary("missing"))
    same(why.details(), "no such thing: grün 100%")
    same(dict(why.trailing_metadata())["why"], "it was eaten")
    answers = method("unary_stream", "broken")(b"", timeout=30)
    same([next(answers), next(answers)], [b"one", b"two"])
    why = fails(grpc.StatusCode.DATA_LOSS, lambda: next(answers))
    same(why.details(), "the rest is gone")
    # no handler: an answer of trailers only, by the library
    why = fails(grpc.StatusCode.UNIMPLEMENTED, lambda: unary("nothing"))
    assert "Method not found" in why.details(), why


def ends(name):
    """Waits until the server saw the call called `name` end."""
    deadline = time.monotonic() + 10
    while unary("has_ended", name)[0] != b"yes":
        assert time.monotonic() < deadline, f"{name} did not end at the server"
        time.sleep(0.02)


def deadlines():
    left = float(unary("late", b"1", timeout=20)[0])
    # the library rounds up
    assert 15 < left < 21, f"the server has {left} of 20 s"
    began = time.monotonic()
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: unary("late", b"25", timeout=0.3))
    took = time.monotonic() - began
    ends(b"25")
    print(f"a deadline of 0.300 s came after {took:.3f} s")


def cancels():
    name = b"cancelled %d" % os.getpid()
    call = method("unary_stream", "waits")(name, timeout=30)
    same(next(call), b"here")
    same(unary("has_ended", name)[0], b"no")
    began = time.monotonic()
    call.cancel()
    ends(name)
    print(f"a cancelled call ended at the server within {time.monotonic() - began:.3f} s")
    same(call.code(), grpc.StatusCode.CANCELLED)


def at_once():
    began = time.monotonic()
    calls = [method("unary_unary", "meet").future(b"%d" % n, timeout=40) for n in range(AT_ONCE)]
    same([int(call.result()) for call in calls], list(range(AT_ONCE)))
    print(f"{AT_ONCE} calls at once in {time.monotonic() - began:.3f} s")


def denied():
    """By no rule: nothing allows it."""
    why = fails(grpc.StatusCode.PERMISSION_DENIED, lambda: unary("echo"))
    print(why.details())


def denied_method():
    """By a deny for one method; the others of this channel go on."""
    same(unary("echo", b"x")[0], b"x")
    why = fails(grpc.StatusCode.PERMISSION_DENIED, lambda: unary("secret"))
    same(unary("echo", b"y")[0], b"y")
    print(why.details())


def caller():
    print(unary("caller")[0].decode())


def everything():
    for part in [messages, streams, errors, deadlines, cancels, at_once]:
        part()


what = {"all": everything, "denied": denied, "denied_method": denied_method, "caller": caller}
what[sys.argv[1]]()
