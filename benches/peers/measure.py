"""Measures watershed beside its peers. Started by `benches/peers/run`; see there."""

import argparse
import datetime
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import clients
from peers import COMMANDS, HERE, LOAD_CORE, LOGGED, PROXY_CORE, Peer, Site, free_port, wait_for

COOKIE = "Cookie: a=b; uid=user-4711"
CELLS = ["small", "paced", "syscalls", "instructions", "large", "tls", "idle", "workers", "kinds"]
# What is not measured with logging: a log line is nothing beside a large body.
PLAIN_ONLY = ["large", "workers", "kinds"]
# Proxies without an access log are there only once.
ALL = [*COMMANDS, *(name + LOGGED for name in COMMANDS if name not in ("relay", "nginx-bare", "watershed-redis"))]
ALL_CORES = f"{PROXY_CORE},{LOAD_CORE}"
# Requests a second that every proxy is asked, if it can: two fifths of what the fastest do.
RATE = 30_000


def run(*command, cores=LOAD_CORE):
    return subprocess.run(["taskset", "-c", cores, *map(str, command)], capture_output=True, text=True)


def wrk(url, seconds, connections=64, path="/", threads=1, cores=LOAD_CORE):
    """Requests, requests a second, and p50, p99, p99.9 in ms."""
    out = run("wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "-s", Path(__file__).parent / "load.lua", url, "--", path, cores=cores)
    found = re.search(r"RESULT (\d+) (\d+) (\S+) (\S+) (\S+) (\d+)", out.stdout)
    if not found or int(found[6]):
        raise RuntimeError(out.stdout + out.stderr)
    requests, micros = int(found[1]), int(found[2])
    return requests, requests / micros * 1e6, *(float(found[part]) / 1000 for part in (3, 4, 5))


def h2load(url, requests, *more):
    out = run("h2load", "-t1", "-n", requests, "-H", COOKIE, *more, url).stdout
    done, succeeded = re.search(r"(\d+) done, (\d+) succeeded", out).groups()
    if int(succeeded) != requests:
        raise RuntimeError(out)
    return int(done)


def spent(peer, work):
    """What the work gave, and CPU microseconds for each of its requests."""
    before = peer.cpu()
    result = work()
    requests = result[0] if isinstance(result, tuple) else result
    return result, (peer.cpu() - before) * 1e6 / requests


def small(peer, options):
    result, cpu = spent(peer, lambda: wrk(f"http://127.0.0.1:{peer.port}/", options.seconds))
    return {"requests/s": result[1], "p50 ms": result[2], "p99 ms": result[3], "p99.9 ms": result[4], "CPU µs": cpu}


def paced(peer, options):
    """Latencies when all are asked the same number of requests in a second. Who cannot do as many says nothing."""
    times = peer.folder / "times"
    times.unlink(missing_ok=True)
    requests, connections = RATE * options.seconds, 64
    words = ["h2load", "--h1", "-t1", "-c", connections, "--rps", RATE / connections, "-n", requests, "-H", COOKIE]
    out = run(*words, "--log-file", times, f"http://127.0.0.1:{peer.port}/").stdout
    took = sorted(int(line.split()[2]) / 1000 for line in times.read_text().splitlines())
    if f"{requests} succeeded" not in out:
        raise RuntimeError(out)
    if requests / float(re.search(r"finished in ([\d.]+)s", out)[1]) < 0.95 * RATE:
        return {}
    at = lambda share: took[int(len(took) * share)]
    return {f"{RATE:,}/s: p50 ms": at(0.5), f"{RATE:,}/s: p99 ms": at(0.99), f"{RATE:,}/s: p99.9 ms": at(0.999)}


def large(peer, options):
    before = peer.memory()
    _, cpu = spent(peer, lambda: wrk(f"http://127.0.0.1:{peer.port}/large", options.seconds, 16, "/large"))
    return {"1 MiB: CPU µs": cpu, "1 MiB: memory grown KiB": max(0, peer.memory() - before)}


def tls(peer, options):
    if peer.name == "relay":
        return {}
    _, one = spent(peer, lambda: wrk(f"https://127.0.0.1:{peer.tls}/", options.seconds))
    requests = 20_000 * options.seconds
    _, two = spent(peer, lambda: h2load(f"https://127.0.0.1:{peer.tls}/", requests, "-c", 8, "-m", 10))
    return {"TLS, HTTP/1.1: CPU µs": one, "TLS, HTTP/2: CPU µs": two}


def traced(pid):
    return "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text()


def syscalls(peer, options):
    file = peer.folder / "strace"
    pids = [part for pid in peer.processes() for part in ("-p", str(pid))]
    strace = subprocess.Popen(["strace", "-f", "-c", "-o", file, *pids], stderr=subprocess.DEVNULL)
    end = time.time() + 30
    while not all(traced(pid) for pid in peer.processes()) and time.time() < end:
        time.sleep(0.1)
    requests = wrk(f"http://127.0.0.1:{peer.port}/", options.seconds)[0]
    strace.terminate()
    strace.wait()
    calls = int(re.search(r"(\d+)\s+(?:\d+\s+)?total", file.read_text())[1])
    return {"system calls": calls / requests}


def idle(peer, options):
    """Memory that each of 2,000 connections keeps that has asked once, of a proxy that has done nothing else."""
    peer = Peer(peer.name, peer.site)

    def ask():
        one = socket.create_connection(("127.0.0.1", peer.port))
        one.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: uid=user-1\r\n\r\n")
        got = b""
        while not got.endswith(b"x" * 200) and b"x" * 200 not in got:
            got += one.recv(65536)
        return one

    warm = [ask() for _ in range(100)]
    time.sleep(1)
    before = peer.memory()
    kept = [ask() for _ in range(2000)]
    time.sleep(1)
    grown = peer.memory() - before
    for one in warm + kept:
        one.close()
    peer.stop()
    return {"idle connection KiB": grown / 2000}


def workers(peer, options):
    """CPU of a request with one worker and with two, where proxy, load and origin have both cores. Workers that wait for
    each other, or write to the same lines of memory, spend more of it when they are two."""
    if not peer.name.startswith("watershed"):
        return {}
    spends = {}
    for count in (1, 2):
        one = Peer(peer.name, peer.site, cores=ALL_CORES, workers=count)
        load = lambda: wrk(f"http://127.0.0.1:{one.port}/", options.seconds, threads=2, cores=ALL_CORES)
        load()
        _, spends[count] = spent(one, load)
        one.stop()
    return {"one worker: CPU µs": spends[1], "two workers: CPU µs": spends[2]}


def counted(site, name, few, many, load, origin=None):
    """User-space instructions of one request: the difference of many and few, which `load` sends to a port."""

    def count(requests):
        peer = Peer(name, site, ["valgrind", "--tool=callgrind", "--callgrind-out-file=callgrind"], origin=origin)
        if not peer.runs:
            return None
        load(peer.port, requests)
        peer.stop(120)
        return int(re.search(r"^(?:summary|totals): (\d+)", (peer.folder / "callgrind").read_text(), re.M)[1])

    fewer, more = count(few), count(many)
    return (more - fewer) / (many - few) if fewer and more else None


def instructions(site, name):
    load = lambda port, requests: h2load(f"http://127.0.0.1:{port}/", requests, "--h1", "-c", 8)
    found = counted(site, name, 2000, 12_000, load)
    return {"instructions": found} if found else {}


def kinds(site):
    """Instructions of watershed for requests of other kinds than a GET on a connection that stays open."""
    port = free_port()
    origin = subprocess.Popen([sys.executable, HERE.parent / "instructions" / "origin.py", str(port)])
    rows = {}
    try:
        if not wait_for(port, origin):
            sys.exit("the origin of benches/instructions does not run")
        for title, kind in clients.KINDS.items():
            load = lambda port, requests: clients.send(kind, port, requests)
            rows[title] = counted(site, "watershed", 500, 2500, load, origin=port)
    finally:
        origin.terminate()
        origin.wait()
    lines = ["| watershed | instructions | ÷ plain |", "| --- | ---: | ---: |"]
    plain = next(iter(rows.values()))
    return "\n".join(lines + [f"| {title} | {found:,.0f} | {found / plain:.2f} |" for title, found in rows.items() if found and plain])


MEASURES = {"small": small, "paced": paced, "large": large, "tls": tls, "idle": idle, "syscalls": syscalls, "workers": workers}
DIGITS = {f"{at}{name} ms": 2 for at in ("", f"{RATE:,}/s: ") for name in ("p50", "p99", "p99.9")} | {"requests/s": 0, "instructions": 0, "1 MiB: memory grown KiB": 0}


def table(results, names):
    """Markdown: a row for each figure, a column for each proxy; then what watershed's is of theirs."""
    figures = list(dict.fromkeys(figure for name in names for figure in results[name]))
    title = lambda name: name.removesuffix(LOGGED)
    lines = ["| | " + " | ".join(map(title, names)) + " |", "| --- |" + " ---: |" * len(names)]
    for figure in figures:
        cells = []
        for name in names:
            values = results[name].get(figure)
            cells.append(f"{statistics.median(values):,.{DIGITS.get(figure, 1)}f}" if values else "–")
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    peers = [name for name in names if not name.startswith("watershed")]
    own = next((name for name in names if title(name) == "watershed"), None)
    if own and peers:
        lines += ["", "| watershed ÷ | " + " | ".join(map(title, peers)) + " |", "| --- |" + " ---: |" * len(peers)]
        for figure in figures:
            ours = results[own].get(figure)
            if not ours or "grown" in figure:
                continue
            cells = []
            for name in peers:
                theirs = results[name].get(figure)
                median = statistics.median(theirs) if theirs else 0
                cells.append(f"{statistics.median(ours) / median:.2f}" if median > 0 else "–")
            if any(cell != "–" for cell in cells):
                lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions():
    def first(*command):
        out = subprocess.run(command, capture_output=True, text=True)
        return re.search(r"\d+\.\d+(\.\d+)?", out.stdout + out.stderr)

    asked = {"nginx": ["nginx", "-v"], "nginx-current": ["nginx-current", "-v"], "HAProxy": ["haproxy", "-v"], "Envoy": ["envoy", "--version"],
             "Traefik": ["traefik", "version"], "Redis": ["redis-server", "--version"], "rustc": ["rustc", "--version"]}
    known = []
    for name, command in asked.items():
        try:
            text = first(*command)
            known.append(f"{name} {text[0]}" if text else name)
        except FileNotFoundError:
            pass
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{cpu[1] if cpu else platform.machine()}, Linux {platform.release()}, " + ", ".join(known)


def write(text):
    """Puts the text between the marks in docs/performance.md."""
    page = Path("docs/performance.md")
    begin, end = "<!-- peers: begin -->", "<!-- peers: end -->"
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one second a cell, one round")
    parser.add_argument("--only", help="these proxies: " + ", ".join(ALL))
    parser.add_argument("--what", help="these figures: " + ", ".join(CELLS))
    parser.add_argument("--write", action="store_true", help="write the tables into docs/performance.md")
    options = parser.parse_args()
    options.seconds, rounds = (1, 1) if options.quick else (3, 5)
    names = options.only.split(",") if options.only else ALL
    cells = options.what.split(",") if options.what else CELLS
    results = {name: {} for name in names}

    def keep(name, figures):
        print(name, {figure: round(value, 2) for figure, value in figures.items()}, file=sys.stderr)
        for figure, value in figures.items():
            results[name].setdefault(figure, []).append(value)

    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder, with_redis="watershed-redis" in names)
        peers = []
        try:
            peers = [Peer(name, site) for name in names]
            names = [peer.name for peer in peers if peer.runs]
            for cell in [cell for cell in cells if cell in MEASURES]:
                for turn in range(1 if cell in ("idle", "syscalls") else rounds):
                    # Each round begins with another one.
                    logs = lambda peer: peer.name.endswith(LOGGED)
                    running = [peer for peer in peers if peer.runs and not (logs(peer) and cell in PLAIN_ONLY)]
                    for peer in running[turn % len(running):] + running[: turn % len(running)]:
                        keep(peer.name, MEASURES[cell](peer, options))
            for peer in peers:
                peer.stop()
            peers = []
            if "instructions" in cells:
                for name in names:
                    # Envoy and Traefik are too much for valgrind; the relay reads nothing.
                    if name.removesuffix(LOGGED) not in ("envoy", "traefik", "relay"):
                        keep(name, instructions(site, name))
            other = kinds(site) if "kinds" in cells else ""
        finally:
            for peer in peers:
                peer.stop()
            site.stop()
    plain = [name for name in names if not name.endswith(LOGGED) and results[name]]
    logged = [name for name in names if name.endswith(LOGGED) and results[name]]
    text = f"{datetime.date.today():%-d %B %Y}; {versions()}.\n"
    if plain:
        text += f"\n{table(results, plain)}\n"
    if logged:
        text += f"\nWith logging:\n\n{table(results, logged)}\n"
    if other:
        text += f"\nOther kinds of requests:\n\n{other}\n"
    print(text)
    if options.write:
        write(text)


if __name__ == "__main__":
    main()
