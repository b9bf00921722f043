"""Runs a program under the load that profile-guided optimisation learns from. `train.py PROGRAM`."""

import itertools
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

BENCHES = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BENCHES / "peers"))
import clients  # noqa: E402

REQUESTS = 20_000
BROWSER = "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
FIELDS = [
    BROWSER,
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-encoding: gzip, deflate, br, zstd",
    "accept-language: en-GB,en;q=0.9,de;q=0.8",
    "sec-fetch-dest: document",
    "sec-fetch-mode: navigate",
]
ROUTES = """
listen: 127.0.0.1:{public}
tls: {{ listen: 127.0.0.1:{tls}, certificates: {{ cert: cert.pem, key: key.pem }} }}
admin: {{ listen: 127.0.0.1:{admin} }}
workers: 1
user: {{ cookie: uid }}
upstreams: {{ a: "http://127.0.0.1:{origin}", b: "http://127.0.0.1:{origin}" }}
experiments:
  checkout: {{ match: /checkout/**, control: a, experiment: b, percent: 20 }}
  site: {{ control: a, experiment: b, percent: 50{site} }}
metrics:
  buy: "POST /buy -> 2xx"
  revenue: {{ event: purchase, value: amount, kind: mean }}
{more}"""
# As people run it, and without what costs a request something.
KINDS = [
    {"site": "", "more": "access_log: access.log\ntimeouts: { total: 60s }\n"},
    {"site": ', assets: "off", validators: "off"', "more": ""},
]


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(url):
    for _ in range(300):
        try:
            return urllib.request.urlopen(url, timeout=5).read()
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"no answer from {url}")


def h2load(url, *words, requests=REQUESTS):
    command = ["h2load", "-n", str(requests), "-c", "16", "-t", "1", *words, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if f" {requests} succeeded" not in done.stdout:
        raise RuntimeError(done.stdout)


def fields(*more):
    return list(itertools.chain.from_iterable(("-H", field) for field in [*FIELDS, *more]))


def load(public, tls):
    """Every kind of request; more of those that sites have more of."""
    plain, secure = f"http://127.0.0.1:{public}", f"https://127.0.0.1:{tls}"
    for user in range(8):
        cookie = f"cookie: theme=dark; uid=user-{user}; session=0123456789abcdef"
        h2load(f"{plain}/products/{user}?page=2", "--h1", *fields(cookie), requests=REQUESTS // 4)
        h2load(f"{secure}/checkout/{user}", "--h1", *fields(cookie), requests=REQUESTS // 4)
        h2load(f"{secure}/products/{user}", "-m", "4", *fields(cookie), requests=REQUESTS // 4)
    h2load(f"{plain}/", "--h1", "-H", "cookie: a=b; uid=user-4711")
    h2load(f"{secure}/", "-H", "cookie: a=b; uid=user-4711")
    h2load(f"{plain}/", "--h1", *fields(), requests=REQUESTS // 10)
    h2load(f"{plain}/", "--h1", "-H", "user-agent: Mozilla/5.0 (compatible; Googlebot/2.1)", requests=REQUESTS // 10)
    with tempfile.NamedTemporaryFile() as form:
        form.write(b"item=7&amount=19.90")
        form.flush()
        h2load(f"{plain}/buy", "--h1", "-d", form.name, *fields("cookie: uid=user-1"), requests=REQUESTS // 10)
        h2load(f"{secure}/buy", "-d", form.name, *fields("cookie: uid=user-2"), requests=REQUESTS // 10)
    for kind in clients.KINDS.values():
        clients.send(kind, public, 300)


def main():
    program = os.path.realpath(sys.argv[1])
    if not shutil.which("h2load"):
        raise SystemExit("error: h2load is missing\n\nhint: apt-get install nghttp2-client")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            public, tls, admin, origin = free_ports(4)
            text = ROUTES.format(public=public, tls=tls, admin=admin, origin=origin, **kind)
            pathlib.Path(folder, "routes.yaml").write_text(text)
            certificate = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            names = ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
            subprocess.run(certificate + names, cwd=folder, check=True, capture_output=True)
            upstream = subprocess.Popen([sys.executable, BENCHES / "instructions" / "origin.py", str(origin)])
            proxy = subprocess.Popen([program, "run", "-c", "routes.yaml"], cwd=folder)
            try:
                wait_for(f"http://127.0.0.1:{admin}/admin/readyz")
                load(public, tls)
                wait_for(f"http://127.0.0.1:{admin}/admin/results")
                proxy.send_signal(signal.SIGTERM)
                if proxy.wait(timeout=60) != 0:
                    raise RuntimeError("the program failed")
            finally:
                proxy.kill()
                upstream.kill()


main()
