"""An origin for browsers and WebSocket clients: pages, WebSockets, events.

Prints its port, then what it sees: one JSON object a line.
"""

import json
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection

NAME = sys.argv[1]

PAGE = """<!doctype html><title>site</title><link rel="icon" href="data:,"><script>
const say = (what, value) => fetch('/said?' + new URLSearchParams({what, value}));
const wait = (target, event) => new Promise((good, bad) => {
  target.addEventListener(event, good, {once: true});
  target.addEventListener('error', () => bad(new Error(target.constructor.name)), {once: true});
});
async function run() {
  const visits = Number(sessionStorage.visits || 0) + 1;
  sessionStorage.visits = visits;
  await say('group', 'NAME');
  if (visits < 4) return location.reload();
  await say('protocol', performance.getEntriesByType('navigation')[0].nextHopProtocol);
  await say('cookies', document.cookie);
  const socket = new WebSocket(`wss://${location.host}/ws`);
  await wait(socket, 'open');
  socket.send('from the browser');
  await say('socket', (await wait(socket, 'message')).data);
  socket.close();
  const events = new EventSource('/events');
  let heard = '';
  for (let number = 0; number < 3; number += 1) heard += (await wait(events, 'message')).data;
  events.close();
  await say('events', heard);
  const beacon = JSON.stringify({event: 'purchase', amount: 19.9, id: 'only-once'});
  await say('beacon', navigator.sendBeacon('/_watershed/events', beacon) && navigator.sendBeacon('/_watershed/events', beacon));
  await say('done', visits);
}
run().catch(error => say('failed', error));
</script>"""


def see(**what):
    sys.stdout.write(json.dumps(what) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        names = ("cookie", "watershed-user", "watershed-experiment", "via")
        see(target=self.path, **{name: self.headers.get(name) for name in names})
        self.send_response(200)
        self.send_header("Connection", "close")
        if self.path == "/events":
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for number in range(100):
                self.wfile.write(f"data: {number};\n\n".encode())
                time.sleep(0.1)
        else:
            body = PAGE.replace("NAME", NAME).encode() if self.path == "/" else b""
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


class Connection(socketserver.BaseRequestHandler):
    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head:
            seen = self.request.recv(65536, socket.MSG_PEEK)
            if not seen or seen == head:
                return
            head = seen
        try:
            if b"\r\nupgrade: websocket\r\n" in head.lower():
                self.echo()
            else:
                Handler(self.request, self.client_address, self.server)
        except OSError:
            pass

    def echo(self):
        """A WebSocket that says back what it hears."""
        deflate = ServerPerMessageDeflateFactory()
        connection = ServerConnection(self.request, ServerProtocol(extensions=[deflate], max_size=None), self.server)
        connection.handshake()
        see(target="/ws", subprotocols=len(connection.protocol.extensions))
        try:
            for message in connection:
                connection.send(message)
        except ConnectionClosed:
            pass
        see(closed=connection.protocol.close_code)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 100
    socket_closed = threading.Event()  # What a WebSocket asks of its server.


with Server(("127.0.0.1", 0), Connection) as server:
    print(server.server_address[1])
    server.serve_forever()
