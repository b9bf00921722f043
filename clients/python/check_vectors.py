"""Compares this library with vectors: python3 check_vectors.py FILE…

A file has a header line and then salt, traffic, groups, user and group, separated by commas; other columns are
those of tests/vectors/bucketing.csv. Exits with 1 on the first difference.
"""

import csv
import sys
from urllib.parse import unquote, unquote_to_bytes

from watershed_assign import Experiment

for path in sys.argv[1:]:
    with open(path, encoding="utf-8", newline="") as file:
        count = 0
        for row in csv.DictReader(file):
            weights = (pair.split("=") for pair in row["weights"].split())
            experiment = Experiment(
                salt=unquote(row["salt"]),
                groups={name: float(weight) for name, weight in weights},
                traffic=float(row["traffic"]),
                algorithm=row.get("algorithm") or "watershed",
                traffic_salt=unquote(row.get("traffic_salt") or "") or None,
            )
            group = experiment.group(unquote_to_bytes(row["user"])) or "outside"
            if group != row["group"]:
                sys.exit(f"{path}: {group} instead of {row['group']}: {row}")
            count += 1
    print(f"{path}: {count} vectors")
