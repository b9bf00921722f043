"""Raw clients for kinds of requests that h2load and wrk do not send."""

import socket

COOKIE = b"Cookie: a=b; uid=user-4711\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n" + COOKIE
POST = b"POST / HTTP/1.1\r\nHost: a\r\n" + COOKIE
CHUNK = b"400\r\n" + b"y" * 1024 + b"\r\n"
LONG_KIB = 64
UPGRADE = b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
HELLO = b"hello"

# What a row is called: what is sent, whether each request has a connection of its own, and what is
# sent once the upstream has switched protocols.
KINDS = {
    "plain (GET, keep-alive)": (GET + b"\r\n", False, None),
    "upload of 3 KiB in chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK * 3 + b"0\r\n\r\n", False, None),
    f"upload of {LONG_KIB} KiB": (POST + b"Content-Length: %d\r\n\r\n" % (LONG_KIB << 10) + b"y" * (LONG_KIB << 10), False, None),
    "HTTP/1.1, a connection for each request": (GET + b"Connection: close\r\n\r\n", True, None),
    "HTTP/1.0, a connection for each request": (b"GET / HTTP/1.0\r\nHost: a\r\n" + COOKIE + b"\r\n", True, None),
    "upgrade, with a message each way": (GET + UPGRADE, True, HELLO),
}


def read_until(one, end):
    got = b""
    while not got.endswith(end):
        more = one.recv(65536)
        if not more:
            raise RuntimeError(f"the connection ended after {got[-200:]!r}")
        got += more
    return got


def exchange(one, request, hello):
    one.sendall(request)
    if hello is None:
        if not read_until(one, b"x" * 200).startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            raise RuntimeError("the response is not a 200")
        return
    if not read_until(one, b"\r\n\r\n").startswith(b"HTTP/1.1 101"):
        raise RuntimeError("the upgrade was refused")
    one.sendall(hello)
    read_until(one, hello)


def send(kind, port, requests):
    """Sends so many requests of a kind, one after the other."""
    request, alone, hello = kind
    connect = lambda: socket.create_connection(("127.0.0.1", port))
    if alone:
        for _ in range(requests):
            with connect() as one:
                exchange(one, request, hello)
        return
    with connect() as one:
        for _ in range(requests):
            exchange(one, request, hello)
