"""Full load for a long time, with a million users and Redis: what grows? Started by `benches/peers/soak`."""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from peers import LOAD_CORE, Peer, Site

SLICE = 30


def load(port, seed):
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", "-c64", f"-d{SLICE}s", "-s", Path(__file__).parent / "soak.lua"]
    out = subprocess.run([*map(str, command), f"http://127.0.0.1:{port}/", "--", str(seed)], capture_output=True, text=True)
    found = re.search(r"RESULT (\d+) (\d+) (\S+) (\S+) (\S+) (\d+)", out.stdout)
    if not found or int(found[6]):
        raise RuntimeError(out.stdout + out.stderr)
    return int(found[1]), *(float(found[part]) / 1000 for part in (3, 4, 5))


def redis_mib(port):
    out = subprocess.run(["redis-cli", "-p", str(port), "info", "memory"], capture_output=True, text=True).stdout
    return int(re.search(r"used_memory:(\d+)", out)[1]) / 1024**2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        site = Site(folder, with_redis=True)
        peer = Peer("watershed-redis", site)
        try:
            print("| minute | requests/s | p50 ms | p99 ms | p99.9 ms | memory MiB | journal MiB | Redis MiB | behind | dropped |")
            print("| ---: " * 10 + "|", flush=True)
            for turn in range(max(3, int(options.minutes * 60 / SLICE))):
                requests, *latencies = load(peer.port, turn + 1)
                files = [file for file in peer.folder.rglob("watershed-journal/**/*") if file.is_file()]
                journal = sum(file.stat().st_blocks * 512 for file in files) / 1024**2
                with urllib.request.urlopen(f"http://127.0.0.1:{peer.admin}/admin/results", timeout=30) as answer:
                    store = json.load(answer)["store"]
                row = [(turn + 1) * SLICE / 60, requests / SLICE, *latencies, peer.memory() / 1024, journal,
                       redis_mib(site.redis_port), store["lag_events"], store["dropped_events"]]
                rows.append(row)
                print("| " + " | ".join(f"{value:,.{0 if value >= 100 or value == int(value) else 1}f}" for value in row) + " |", flush=True)
        finally:
            peer.stop()
            site.stop()
    third = len(rows) // 3
    middle, late = rows[third : 2 * third], rows[2 * third :]
    names = {2: "p50", 3: "p99", 5: "memory", 6: "journal", 7: "Redis"}
    for column, name in names.items():
        ratio = statistics.median(row[column] for row in late) / max(0.01, statistics.median(row[column] for row in middle))
        print(f"{name}: the last third is {ratio:.2f} of the middle one")
    sys.exit(any(row[9] for row in rows))


if __name__ == "__main__":
    main()
