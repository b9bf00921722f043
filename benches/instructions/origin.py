"""An origin that answers every request with the same 200 bytes. `origin.py PORT`."""

import asyncio
import sys

BODY = b"x" * 200
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Tue, 24 Nov 2026 00:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY


class Origin(asyncio.Protocol):
    def __init__(self):
        self.rest = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        *whole, self.rest = (self.rest + data).split(b"\r\n\r\n")
        self.transport.write(ANSWER * len(whole))


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Origin, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
