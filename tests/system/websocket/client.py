"""A WebSocket client that tries an application out. Arguments: what to do, the port on this host."""

import asyncio
import hashlib
import os
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

SIZES = [1, 125, 126, 4096, 65535, 65536, 65537, 1 << 20, 16 << 20]
CODES = [1000, 1001, 1011, 4000]
AT_ONCE = 200
MANY = 400
IDLE = 4


def to(path, **options):
    limits = dict(max_size=None, ping_interval=None, open_timeout=20, close_timeout=20, proxy=None)
    uri = f"ws://orders.mesh/{path}"
    return connect(uri, host="127.0.0.1", port=int(sys.argv[2]), **limits | options)


def same(found, want):
    assert found == want, f"found {found!r:.200}, expected {want!r:.200}"


def digest(data):
    return hashlib.sha256(data).hexdigest()


async def sizes():
    async with to("hashes", compression=None) as ws:
        for size in SIZES:
            data = os.urandom(size)
            began = time.monotonic()
            await ws.send(data)
            same(await ws.recv(), digest(data))
            back = await ws.recv()
            same(len(back), size)
            same(await ws.recv(), digest(back))
            same(digest(back), digest(data[::-1]))
            took = time.monotonic() - began
        print(f"{size >> 20} MiB each way in {took:.2f} s")
    async with to("echo") as ws:
        for text in ["", "x", "grün ✓ 漢字", "y" * 100_000]:
            await ws.send(text)
            same(await ws.recv(), text)


async def closes():
    for code in CODES:
        async with to(f"close/{code}") as ws:
            await ws.send("now")
            try:
                await ws.recv()
                assert False, "it was not closed"
            except ConnectionClosed as why:
                same((why.rcvd.code, why.rcvd.reason), (code, f"because of {code}"))
                same(why.rcvd_then_sent, True)
        name = f"{os.getpid()}-{code}"
        ws = await to(f"closes/{name}")
        await ws.send("soon")
        await ws.close(code, "enough")
        same(ws.close_code, code)
        async with to(f"closed/{name}") as ws:
            same(await ws.recv(), f"{code} enough")


async def control():
    async with to("ping") as ws:
        same(await ws.recv(), "ponged")
        took = await (await ws.ping(b"from the client"))
        assert took < 5, took
    async with to("parts") as ws:
        parts = [os.urandom(size) for size in [1, 2, 70_000, 5, 0, 3000]]
        await ws.send(parts)
        same(await ws.recv(), b"".join(parts))
        await ws.send(b"z" * 5000)
        parts = [part async for part in ws.recv_streaming()]
        same([len(part) for part in parts if part], [999] * 5 + [5])


async def idle():
    async with to("echo") as ws:
        await ws.send("before")
        same(await ws.recv(), "before")
        await asyncio.sleep(IDLE)
        await ws.send("after")
        same(await ws.recv(), "after")


async def at_once():
    async def one(number):
        ws = await to("echo")
        for _ in range(3):
            data = os.urandom(1 + number * 7)
            await ws.send(data)
            same(await ws.recv(), data)
        return ws

    began = time.monotonic()
    opened = await asyncio.gather(*map(one, range(AT_ONCE)))
    print(f"{AT_ONCE} opened and used in {time.monotonic() - began:.2f} s")
    for number, ws in enumerate(opened):
        await ws.send(f"still {number}")
    for number, ws in enumerate(opened):
        same(await ws.recv(), f"still {number}")
    await asyncio.gather(*(ws.close() for ws in opened))
    same({ws.close_code for ws in opened}, {1000})


async def denied():
    try:
        async with to("echo"):
            assert False, "it was let in"
    except InvalidStatus as why:
        answer = why.response
        same((answer.status_code, answer.headers["mesh-error"]), (403, "denied"))
        same(answer.headers["mesh-rule"], "default")
        assert b"denied by default" in answer.body, answer.body


async def caller():
    async with to("caller") as ws:
        print(await ws.recv())


async def many():
    """Opens some, says so, and keeps them until it is ended."""
    opened = []
    for _ in range(MANY):
        opened.append(await to("echo"))
        await opened[-1].send("first")
        same(await opened[-1].recv(), "first")
    print("connected", flush=True)
    await opened[0].recv()


async def kept():
    """Says when it is connected, and how the connection ends."""
    async with to("echo") as ws:
        await ws.send("first")
        same(await ws.recv(), "first")
        print("connected", flush=True)
        try:
            await ws.recv()
        except ConnectionClosed as why:
            print("ended", why.rcvd and why.rcvd.code, flush=True)


async def everything():
    for part in [sizes, closes, control, idle, at_once]:
        await part()


what = {"all": everything, "denied": denied, "caller": caller, "many": many, "kept": kept}
asyncio.run(what[sys.argv[1]]())
