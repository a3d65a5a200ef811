"""A WebSocket application: what a connection does is said by its path. Arguments: a word, the port."""

import asyncio
import hashlib
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

# how connections at /closes/ID were closed by their client, by ID
closed = {}


def digest(data):
    return hashlib.sha256(data).hexdigest()


async def handle(ws):
    what, _, rest = ws.request.path.strip("/").partition("/")
    if what == "hashes":
        # says what it got, then answers with other bytes of the same length and what they are
        async for message in ws:
            back = message[::-1]
            await ws.send(digest(message))
            await ws.send(back)
            await ws.send(digest(back))
    elif what == "echo":
        async for message in ws:
            await ws.send(message)
    elif what == "parts":
        async for message in ws:
            await ws.send([message[at : at + 999] for at in range(0, len(message), 999)])
    elif what == "close":
        await ws.recv()
        await ws.close(int(rest), f"because of {rest}")
    elif what == "closes":
        try:
            async for _ in ws:
                pass
        except ConnectionClosed:
            pass
        closed[rest] = f"{ws.close_code} {ws.close_reason}"
    elif what == "closed":
        while rest not in closed:
            await asyncio.sleep(0.01)
        await ws.send(closed.pop(rest))
    elif what == "ping":
        await (await ws.ping(b"from the server"))
        await ws.send("ponged")
        await ws.wait_closed()
    elif what == "caller":
        await ws.send(ws.request.headers["x-mesh-caller"])


async def main():
    limits = dict(max_size=None, ping_interval=None, backlog=1024)
    async with serve(handle, "127.0.0.1", int(sys.argv[2]), **limits) as server:
        await server.serve_forever()


asyncio.run(main())
