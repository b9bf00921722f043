"""An origin that responds to every request with the same 200 bytes, whatever its body. It switches
protocols where it is asked to, and echoes then. `origin.py PORT`."""

import asyncio
import sys

BODY = b"x" * 200
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Tue, 24 Nov 2026 00:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


class Origin(asyncio.Protocol):
    def __init__(self):
        self.rest, self.echoes = b"", False

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.echoes:
            self.transport.write(data)
            return
        self.rest += data
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            head, body = self.rest[: end + 4].lower(), end + 4
            if b"\r\nupgrade:" in head:
                self.echoes = True
                self.transport.write(SWITCHED)
                return
            if b"\r\ntransfer-encoding: chunked" in head:
                last = self.rest.find(b"\r\n0\r\n\r\n", end)
                if last < 0:
                    return
                body = last + 7
            elif (length := head.find(b"\r\ncontent-length:")) >= 0:
                body += int(head[length + 17 : head.index(b"\r\n", length + 2)])
            if len(self.rest) < body:
                return
            self.rest = self.rest[body:]
            self.transport.write(RESPONSE)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Origin, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
