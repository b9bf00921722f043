"""The proxies that are measured: how each is started, and what it spends."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PROXY_CORE, LOAD_CORE = "0", "1"
TICKS = os.sysconf("SC_CLK_TCK")

# What the name of a proxy ends in that writes an access log, gives each request an ID, and ends a
# request in time, where it can.
LOGGED = "+log"

NGINX = ["-e", "/dev/null", "-c"]

# name: (configuration files, command).
COMMANDS = {
    "relay": (["relay.cfg"], ["haproxy", "-db", "-f", "relay.cfg"]),
    "nginx": (["nginx.conf"], ["nginx", *NGINX, "@FOLDER@/nginx.conf"]),
    "nginx-bare": (["nginx-bare.conf"], ["nginx", *NGINX, "@FOLDER@/nginx-bare.conf"]),
    "nginx-current": (["nginx.conf"], ["nginx-current", *NGINX, "@FOLDER@/nginx.conf"]),
    "haproxy": (["haproxy.cfg"], ["haproxy", "-db", "-f", "haproxy.cfg"]),
    "envoy": (["envoy.yaml"], ["envoy", "-c", "envoy.yaml", "--concurrency", "1", "-l", "off", "--disable-hot-restart"]),
    "traefik": (["traefik.yaml", "traefik-routes.yaml"], ["traefik", "--configFile=traefik.yaml"]),
    "watershed": (["watershed.yaml"], ["@WATERSHED@", "run", "-c", "watershed.yaml"]),
    "watershed-redis": (["watershed.yaml"], ["@WATERSHED@", "run", "-c", "watershed.yaml"]),
}


def variant(text, logged):
    """A configuration with the lines of one variant: those behind `#logged`, or those before `#plain`."""
    if logged:
        text = re.sub(r"^.* #plain\n", "", text, flags=re.M)
        return text.replace("#logged ", "")
    text = re.sub(r"^ *#logged .*\n", "", text, flags=re.M)
    return text.replace(" #plain", "")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port, process, seconds=30):
    end = time.time() + seconds
    while time.time() < end:
        if process.poll() is not None:
            return False
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as one:
                one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: uid=user-1\r\nConnection: close\r\n\r\n")
                if one.recv(12) == b"HTTP/1.1 200":
                    return True
        except OSError:
            pass
        time.sleep(0.2)
    return False


class Peer:
    """One proxy, started on its core, with ports of its own."""

    def __init__(self, name, site, wrapper=(), cores=PROXY_CORE, workers=1, origin=None):
        self.name, self.port, self.tls, self.admin = name, free_port(), free_port(), free_port()
        self.site = site
        self.folder = site.folder / f"{name}-{self.port}"
        self.folder.mkdir()
        files, command = COMMANDS[name.removesuffix(LOGGED)]
        places = {
            "PORT": self.port, "TLS": self.tls, "ADMIN": self.admin, "ORIGIN": origin or site.origin_port,
            "FOLDER": self.folder, "WATERSHED": Path("target/dist/watershed").absolute(),
            "STORE": f"redis://127.0.0.1:{site.redis_port}" if name.endswith("redis") else "watershed.db",
        }
        fill = lambda text: re.sub(r"@([A-Z]+)@", lambda found: str(places[found[1]]), text)
        for pem in ("cert.pem", "key.pem", "both.pem"):
            shutil.copy(site.folder / pem, self.folder)
        for file in files:
            text = variant((HERE / file).read_text(), name.endswith(LOGGED)).replace("workers: 1", f"workers: {workers}")
            (self.folder / file).write_text(fill(text))
        # HAProxy writes its access log here.
        self.log = open(self.folder / "log", "w")
        self.process = subprocess.Popen(
            ["taskset", "-c", cores, *wrapper, *map(fill, command)],
            cwd=self.folder, stdout=self.log, stderr=self.log,
            env={**os.environ, "GOMAXPROCS": "1"},
        )
        self.runs = wait_for(self.port, self.process, 120 if wrapper else 30)
        if not self.runs:
            print(f"{name} does not run: {(self.folder / 'log').read_text()[-500:]}", file=sys.stderr)

    def processes(self):
        """The process and its descendants."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    todo += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            except FileNotFoundError:
                pass
        return found

    def cpu(self):
        """User and system time so far, in seconds, by the operating system's accounting."""
        total = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory(self, key="VmRSS"):
        """Resident memory in KiB; `VmHWM` is its height so far."""
        status = (Path(f"/proc/{pid}/status").read_text() for pid in self.processes())
        return sum(int(re.search(rf"{key}:\s+(\d+)", text)[1]) for text in status if key in text)

    def stop(self, patience=60):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Site:
    """The origin, a Redis and a certificate, in a folder that is thrown away."""

    def __init__(self, folder, with_redis):
        self.folder = Path(folder)
        self.origin_port, self.redis_port = free_port(), free_port()
        (self.folder / "large").write_bytes(os.urandom(1 << 20))
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             *subject, "-keyout", "key.pem", "-out", "cert.pem"], cwd=self.folder, check=True, stderr=subprocess.DEVNULL)
        pems = [(self.folder / pem).read_text() for pem in ("cert.pem", "key.pem")]
        (self.folder / "both.pem").write_text("".join(pems))
        text = (HERE / "origin.conf").read_text()
        for key, value in {"ORIGIN": self.origin_port, "FOLDER": self.folder, "BODY": "x" * 200}.items():
            text = text.replace(f"@{key}@", str(value))
        (self.folder / "origin.conf").write_text(text)
        self.folder.chmod(0o755)
        pinned = ["taskset", "-c", LOAD_CORE]
        nginx = ["nginx", "-e", "/dev/null", "-c", str(self.folder / "origin.conf")]
        self.processes = [subprocess.Popen([*pinned, *nginx])]
        if with_redis:
            redis = ["redis-server", "--port", str(self.redis_port), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
            self.processes.append(subprocess.Popen([*pinned, *redis], stdout=subprocess.DEVNULL, cwd=self.folder))
        if not wait_for(self.origin_port, self.processes[0]):
            sys.exit("the origin does not run")

    def stop(self):
        for process in self.processes:
            process.terminate()
            process.wait()
