"""A WebSocket client that tries what WebSockets do: websocket.py ADDRESS"""

import os
import sys
import time

from websockets.sync.client import connect

with connect(f"ws://{sys.argv[1]}/ws", max_size=None) as socket:
    through = socket.response.headers.get("Via") == "1.1 watershed"
    assert through == (sys.argv[2:] != ["direct"]), socket.response.headers
    assert socket.protocol.extensions, "compression was not agreed on"
    for message in ("", "ä", "x" * 1_000_000, b"", os.urandom(5_000_000)):
        socket.send(message)
        assert socket.recv(timeout=20) == message
    # In fragments, and with control frames between.
    socket.send(iter(["a", "b", "c"]))
    assert socket.recv(timeout=20) == "abc"
    begun = time.monotonic()
    assert socket.ping().wait(20), "no pong"
    assert time.monotonic() - begun < 1
    # Many at once, in order.
    for number in range(1000):
        socket.send(str(number))
    for number in range(1000):
        assert socket.recv(timeout=20) == str(number)
    # Quiet for longer than an idle connection may be.
    time.sleep(1.5)
    socket.send("still here")
    assert socket.recv(timeout=20) == "still here"
    socket.close(4321, "enough")
    assert socket.protocol.close_code == 4321, socket.protocol.close_code
print("all is well")
