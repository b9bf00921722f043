"""An origin with ten pages that use what browsers fetch on their own: a web app manifest, a font, a
prefetched next page, an icon and a service worker with its own requests.

Prints its port, then what it sees: one JSON object a line.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = """<!doctype html><title>page NUMBER</title>
<link rel="manifest" href="/app.webmanifest"><link rel="icon" href="/icon.png">
<link rel="preload" as="font" type="font/woff2" crossorigin href="/font.woff2">
<link rel="prefetch" href="/page/NEXT">
<script type="module" src="/module.js"></script><img src="/picture.png" alt="">
<script>
addEventListener('load', async () => {
  await navigator.serviceWorker.register('/worker.js', {scope: '/'});
  await navigator.serviceWorker.ready;
  await fetch('/api/NUMBER');
  if (NUMBER < 9) location.href = '/page/NEXT';
  else await fetch('/done');
});
</script>"""
WORKER = """
self.addEventListener('install', event => event.waitUntil(caches.open('a').then(it => it.addAll(['/offline', '/module.js']))));
self.addEventListener('activate', event => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', event => event.respondWith(fetch(event.request)));
"""
TYPES = {".js": "text/javascript", ".webmanifest": "application/manifest+json", ".png": "image/png"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        names = ("cookie", "sec-fetch-dest", "sec-fetch-mode", "sec-purpose")
        line = {"target": self.path, **{name: self.headers.get(name) for name in names}}
        sys.stdout.write(json.dumps(line) + "\n")
        body, kind = "", "text/html"
        if self.path.startswith("/page/"):
            number = int(self.path.rsplit("/", 1)[1])
            body = PAGE.replace("NUMBER", str(number)).replace("NEXT", str(number + 1))
        elif self.path == "/worker.js":
            body = WORKER
        elif self.path == "/app.webmanifest":
            body = '{"name": "app", "start_url": "/page/0", "display": "standalone"}'
        for end, of_type in TYPES.items():
            kind = of_type if self.path.endswith(end) else kind
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
