"""Assigns users to groups as watershed does, without asking it.

    from watershed_assign import Experiment

    checkout = Experiment(salt="new-checkout", groups={"control": 50, "experiment": 50})
    checkout.group("user-1")        # "experiment"; None for a user who takes no part

The arguments are the keys of an experiment in routes.yaml. Standard library only; Python 3.9 or later.
Not computed here, because they need more than the user's ID: `match`, `layer`, `holdout`, `requires`,
`include`, sticky cookies, overrides and decisions.
"""

import hashlib
import math
from fractions import Fraction

__all__ = ["ALGORITHMS", "Experiment"]

ALGORITHMS = (
    "watershed",
    "optimizely",
    "unleash",
    "growthbook_v1",
    "growthbook_v2",
    "split",
    "launchdarkly",
    "posthog",
    "statsig",
    "eppo",
    "flagd",
)

_TRAFFIC_SALT = {"unleash", "split", "statsig", "eppo"}
_INFINITY = math.inf


class Experiment:
    """The split of one experiment.

    salt          what is hashed with the user's ID; in routes.yaml the experiment's name unless given
    groups        the groups with their weights, in the order of the file
    traffic       the share of users who take part, from 0 to 1
    algorithm     one of ALGORITHMS; "growthbook" is "growthbook_v2"
    traffic_salt  as in routes.yaml
    """

    def __init__(self, salt, groups, traffic=1.0, algorithm="watershed", traffic_salt=None):
        if algorithm == "growthbook":
            algorithm = "growthbook_v2"
        if algorithm not in ALGORITHMS:
            raise ValueError(f"unknown algorithm {algorithm!r}; known: {', '.join(ALGORITHMS)}")
        if not 0 <= traffic <= 1:
            raise ValueError(f"traffic is {traffic!r}, and must be from 0 to 1")
        sound = all(w >= 0 and math.isfinite(w) for w in groups.values())
        if not sound or not sum(groups.values()) > 0:
            raise ValueError("weights must be 0 or more, and one of them positive")
        if traffic_salt is not None and algorithm not in _TRAFFIC_SALT:
            raise ValueError(f"traffic_salt has no meaning for {algorithm}")
        self.salt, self.traffic, self.algorithm = str(salt), traffic, algorithm
        self.names, self.weights = list(groups), list(groups.values())
        self.traffic_salt = None if traffic_salt is None else str(traffic_salt)
        if algorithm != "watershed":
            self._admits = self._admission()
            share = traffic if self._admits is None else 1.0
            self._ranges = _ranges(algorithm, share, self.weights)

    def group(self, user):
        """Returns the name of the user's group, or None for a user who takes no part.

        `user` is a str, or bytes as they were sent. An empty ID is nobody's.
        """
        user = user.encode("utf-8", "surrogatepass") if isinstance(user, str) else bytes(user)
        if not user:
            return None
        if self.algorithm == "watershed":
            return self._watershed(user)
        if self._admits is not None and not self._admits(user):
            return None
        number = _number(self.algorithm, self.salt, user, sum(self.weights))
        for name, (start, end) in zip(self.names, self._ranges):
            if start <= number < end:
                return name
        return None

    def _watershed(self, user):
        def draw(name):
            return _murmur3(f"{self.salt}/{name}/".encode() + user, 0)

        if draw("traffic") >= self.traffic * 2**32:
            return None
        if len(set(self.weights)) == 1:
            return max(self.names, key=draw)
        score = {
            name: math.log((draw(name) + 0.5) / 2**32) / weight
            for name, weight in zip(self.names, self.weights)
            if weight > 0
        }
        return max(score, key=score.get)

    def _admission(self):
        """Who takes part, where another hash than that of the group decides it."""
        algorithm, traffic = self.algorithm, self.traffic
        if traffic == 1:
            return None
        percent = math.floor(_tidy(traffic * 100))
        if algorithm == "unleash":
            prefix = (self.salt if self.traffic_salt is None else self.traffic_salt) + ":"
            return lambda user: _murmur3(prefix.encode() + user, 0) % 100 < percent
        if algorithm == "posthog":
            return lambda user: _sha1(f"{self.salt}.".encode() + user) <= traffic
        if self.traffic_salt is None:
            return None
        below = {"split": percent, "statsig": _half_up(traffic * 1000), "eppo": _half_up(traffic * 10000)}
        if algorithm not in below:
            return None
        return lambda user: _number(algorithm, self.traffic_salt, user, 0) < below[algorithm]


def _number(algorithm, salt, user, total):
    """The number that decides the group."""
    key = salt.encode("utf-8")
    if algorithm == "optimizely":
        return math.floor(_murmur3(user + key, 1) / 2**32 * 10000)
    if algorithm == "unleash":
        return _murmur3(key + b":" + user, 86028157) % int(total)
    if algorithm == "growthbook_v1":
        return _fnv(_text(user) + salt) % 1000 / 1000
    if algorithm == "growthbook_v2":
        return _fnv(str(_fnv(salt + _text(user)))) % 10000 / 10000
    if algorithm == "split":
        return _murmur3(user, int(salt) & 0xFFFFFFFF) % 100
    if algorithm == "launchdarkly":
        return _sha1(key + b"." + user)
    if algorithm == "posthog":
        return _sha1(key + b"." + user + b"variant")
    if algorithm == "statsig":
        return int.from_bytes(hashlib.sha256(key + b"." + user).digest()[:8], "big") % 1000
    if algorithm == "eppo":
        digest = hashlib.md5(key + b"-" + user, usedforsecurity=False).digest()
        return int.from_bytes(digest[:4], "big") % 10000
    text = _text(user).encode("utf-8")
    return _murmur3(b"\x82" + _cbor_head(len(key)) + key + _cbor_head(len(text)) + text, 0)


def _ranges(algorithm, traffic, weights):
    """For each group the first number, and the one that is no longer in it."""
    total = math.fsum(weights)
    if algorithm.startswith("growthbook"):
        is_fraction = 0.99 <= total <= 1.01
        ranges, start = [], 0.0
        for weight in weights:
            weight = weight if is_fraction else _tidy(weight / total)
            ranges.append((start, start + traffic * weight))
            start += weight
        return ranges
    last = max(place for place, weight in enumerate(weights) if weight > 0)
    ranges, start, reached, added = [], 0, 0, 0.0
    for place, weight in enumerate(weights):
        reached += weight

        def of(numbers):
            return _tidy(reached * numbers / total * traffic)

        if algorithm == "unleash":
            end = reached
        elif algorithm == "split":
            end = math.floor(of(100))
        elif algorithm in ("optimizely", "eppo"):
            end = _half_up(of(10000))
        elif algorithm == "statsig":
            end = _half_up(of(1000))
        elif algorithm == "launchdarkly":
            added += _half_up(weight / total * traffic * 100000) / 100000
            end = added
        elif algorithm == "posthog":
            added += _tidy(weight * 100 / total) / 100
            end = added
        elif traffic == 1:
            end = math.ceil(Fraction(reached) * 2**32 / Fraction(sum(weights)))
        else:
            end = math.ceil(reached / total * traffic * 2**32)
        if traffic == 1 and place == last:
            end = _INFINITY
        ranges.append((start, end))
        start = end
    return ranges


def _half_up(number):
    return math.floor(number + 0.5)


def _tidy(number):
    """Removes what dividing decimal fractions leaves in the last digits."""
    return _half_up(number * 1e12) / 1e12


def _text(user):
    return user.decode("utf-8", "replace")


def _sha1(key):
    """The first 60 bits as a fraction of 1."""
    return int(hashlib.sha1(key, usedforsecurity=False).hexdigest()[:15], 16) / float(0xFFFFFFFFFFFFFFF)


def _fnv(text):
    """FNV-1a, 32 bit, over UTF-16 units, as JavaScript sees a text."""
    state, units = 0x811C9DC5, text.encode("utf-16-le", "surrogatepass")
    for place in range(0, len(units), 2):
        state = (state ^ int.from_bytes(units[place : place + 2], "little")) * 0x01000193 & 0xFFFFFFFF
    return state


def _cbor_head(length):
    if length < 24:
        return bytes([0x60 + length])
    for kind, width in ((0x78, 1), (0x79, 2), (0x7A, 4)):
        if length < 256**width:
            return bytes([kind]) + length.to_bytes(width, "big")
    return b"\x7b" + length.to_bytes(8, "big")


def _murmur3(key, seed):
    """MurmurHash3, x86, 32 bit."""

    def turn(number, bits):
        return (number << bits | number >> (32 - bits)) & 0xFFFFFFFF

    def mixed(word):
        return turn(word * 0xCC9E2D51 & 0xFFFFFFFF, 15) * 0x1B873593 & 0xFFFFFFFF

    state, whole = seed, len(key) // 4 * 4
    for place in range(0, whole, 4):
        word = int.from_bytes(key[place : place + 4], "little")
        state = turn(state ^ mixed(word), 13) * 5 + 0xE6546B64 & 0xFFFFFFFF
    state ^= mixed(int.from_bytes(key[whole:], "little")) ^ len(key)
    state = (state ^ state >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    state = (state ^ state >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return state ^ state >> 16
