"""A gRPC application without generated code: messages are bytes. Argument: the port."""

import hashlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

AT_ONCE = 50
LIMITS = [("grpc.max_receive_message_length", 8 << 20)]
together = threading.Barrier(AT_ONCE)
# names of calls that ended before they were answered
ended = set()


def echo(message, context):
    return message


def digest(message, context):
    """Says in trailing metadata what it got, and answers with other bytes of the same length."""
    found = hashlib.sha256(message).hexdigest()
    context.set_trailing_metadata((("digest", found), ("raw-bin", bytes(range(256)))))
    return message[::-1]


def caller(message, context):
    return dict(context.invocation_metadata()).get("x-mesh-caller", "").encode()


def count(message, context):
    for number in range(int(message)):
        yield b"%d" % number


def add(messages, context):
    return b"%d" % sum(int(message) for message in messages)


def talk(messages, context):
    for message in messages:
        yield message + b" heard"


def missing(message, context):
    context.set_trailing_metadata((("why", "it was eaten"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: grün 100%")


def broken(message, context):
    """Some answers, then an error."""
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.DATA_LOSS, "the rest is gone")


def late(message, context):
    """Says after as many seconds as the message says how much time it had."""
    left = context.time_remaining()
    context.add_callback(lambda: ended.add(message))
    time.sleep(int(message))
    return repr(left).encode()


def waits(message, context):
    """Answers once, then says nothing until the call ends."""
    over = threading.Event()
    context.add_callback(over.set)
    yield b"here"
    if over.wait(30):
        ended.add(message)


def has_ended(message, context):
    return b"yes" if message in ended else b"no"


def meet(message, context):
    """Answers when all are there."""
    together.wait(30)
    return message


ONE_TO_ONE = [echo, digest, caller, missing, late, has_ended, meet]
ONE_TO_MANY = [count, broken, waits]
HANDLERS = {
    **{f.__name__: grpc.unary_unary_rpc_method_handler(f) for f in ONE_TO_ONE},
    **{f.__name__: grpc.unary_stream_rpc_method_handler(f) for f in ONE_TO_MANY},
    "add": grpc.stream_unary_rpc_method_handler(add),
    "talk": grpc.stream_stream_rpc_method_handler(talk),
}
server = grpc.server(ThreadPoolExecutor(AT_ONCE + 20), options=LIMITS)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tests.App", HANDLERS),))
assert server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
