/**
 * Assigns users to groups as watershed does, without asking it.
 *
 *     import { Experiment } from "./watershed-assign.mjs";
 *
 *     const checkout = new Experiment({ salt: "new-checkout", groups: { control: 50, experiment: 50 } });
 *     checkout.group("user-1");       // "experiment"; null for a user who takes no part
 *
 * The options are the keys of an experiment in routes.yaml. No dependencies; browsers, Node, Deno and Bun.
 * Not computed here, because they need more than the user's ID: `match`, `layer`, `holdout`, `requires`,
 * `include`, sticky cookies, overrides and decisions.
 */

export const ALGORITHMS = [
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
];

const TRAFFIC_SALT = new Set(["unleash", "split", "statsig", "eppo"]);
const TWO_32 = 2 ** 32;

/** The split of one experiment. */
export class Experiment {
  /**
   * @param {object} options
   * @param {string} options.salt what is hashed with the user's ID; in routes.yaml the experiment's name unless given
   * @param {Record<string, number> | Array<[string, number]>} options.groups the groups with their weights, in the
   *   order of the file. Names that are numbers need the list: objects put them first.
   * @param {number} [options.traffic] the share of users who take part, from 0 to 1
   * @param {string} [options.algorithm] one of ALGORITHMS; "growthbook" is "growthbook_v2"
   * @param {string} [options.trafficSalt] `traffic_salt` in routes.yaml
   */
  constructor({ salt, groups, traffic = 1, algorithm = "watershed", trafficSalt }) {
    if (algorithm === "growthbook") algorithm = "growthbook_v2";
    if (!ALGORITHMS.includes(algorithm)) {
      throw new RangeError(`unknown algorithm ${algorithm}; known: ${ALGORITHMS.join(", ")}`);
    }
    if (!(traffic >= 0 && traffic <= 1)) {
      throw new RangeError(`traffic is ${traffic}, and must be from 0 to 1`);
    }
    const pairs = Array.isArray(groups) ? groups : Object.entries(groups);
    this.names = pairs.map(([name]) => name);
    this.weights = pairs.map(([, weight]) => weight);
    this.total = this.weights.reduce((sum, weight) => sum + weight, 0);
    if (!this.weights.every((weight) => weight >= 0 && Number.isFinite(weight)) || !(this.total > 0)) {
      throw new RangeError("weights must be 0 or more, and one of them positive");
    }
    if (trafficSalt !== undefined && !TRAFFIC_SALT.has(algorithm)) {
      throw new RangeError(`trafficSalt has no meaning for ${algorithm}`);
    }
    this.salt = String(salt);
    this.traffic = traffic;
    this.algorithm = algorithm;
    if (algorithm !== "watershed") {
      this.admits = admission(this, trafficSalt);
      this.ranges = rangesOf(algorithm, this.admits ? 1 : traffic, this.weights, this.total);
    }
  }

  /**
   * Returns the name of the user's group, or null for a user who takes no part.
   * @param {string | Uint8Array} user a text, or the bytes as they were sent. An empty ID is nobody's.
   * @returns {string | null}
   */
  group(user) {
    const bytes = typeof user === "string" ? utf8(user) : user;
    if (bytes.length === 0) return null;
    if (this.algorithm === "watershed") return heaviest(this, bytes);
    if (this.admits && !this.admits(bytes)) return null;
    const number = numberOf(this.algorithm, this.salt, bytes, this.total);
    const place = this.ranges.findIndex(([start, end]) => start <= number && number < end);
    return place < 0 ? null : this.names[place];
  }
}

function heaviest({ salt, names, weights, traffic }, user) {
  const draw = (name) => murmur3(joined(utf8(`${salt}/${name}/`), user), 0);
  if (!(draw("traffic") < traffic * TWO_32)) return null;
  const even = weights.every((weight) => weight === weights[0]);
  let best = null;
  let bestScore = -Infinity;
  names.forEach((name, place) => {
    if (weights[place] === 0) return;
    const hash = draw(name);
    const score = even ? hash : Math.log((hash + 0.5) / TWO_32) / weights[place];
    if (score > bestScore) [best, bestScore] = [name, score];
  });
  return best;
}

/** Who takes part, where another hash than that of the group decides it. */
function admission({ algorithm, salt, traffic }, trafficSalt) {
  if (traffic === 1) return null;
  const percent = Math.floor(tidy(traffic * 100));
  if (algorithm === "unleash") {
    const prefix = utf8(`${trafficSalt ?? salt}:`);
    return (user) => murmur3(joined(prefix, user), 0) % 100 < percent;
  }
  if (algorithm === "posthog") {
    const prefix = utf8(`${salt}.`);
    return (user) => sha1Fraction(joined(prefix, user)) <= traffic;
  }
  if (trafficSalt === undefined) return null;
  const below = { split: percent, statsig: Math.round(traffic * 1000), eppo: Math.round(traffic * 10000) };
  return (user) => numberOf(algorithm, trafficSalt, user, 0) < below[algorithm];
}

/** The number that decides the group. */
function numberOf(algorithm, salt, user, total) {
  const key = utf8(salt);
  switch (algorithm) {
    case "optimizely":
      return Math.floor((murmur3(joined(user, key), 1) / TWO_32) * 10000);
    case "unleash":
      return murmur3(joined(utf8(`${salt}:`), user), 86028157) % total;
    case "growthbook_v1":
      return (fnv(text(user) + salt) % 1000) / 1000;
    case "growthbook_v2":
      return (fnv(String(fnv(salt + text(user)))) % 10000) / 10000;
    case "split":
      return murmur3(user, Number(salt) >>> 0) % 100;
    case "launchdarkly":
      return sha1Fraction(joined(utf8(`${salt}.`), user));
    case "posthog":
      return sha1Fraction(joined(utf8(`${salt}.`), user, utf8("variant")));
    case "statsig": {
      const [high, low] = sha256(joined(utf8(`${salt}.`), user));
      return Number(((BigInt(high) << 32n) | BigInt(low)) % 1000n);
    }
    case "eppo":
      return md5(joined(utf8(`${salt}-`), user)) % 10000;
    default: {
      const decoded = utf8(text(user));
      const head = Uint8Array.of(0x82);
      return murmur3(joined(head, cborHead(key.length), key, cborHead(decoded.length), decoded), 0);
    }
  }
}

/** For each group the first number, and the one that is no longer in it. */
function rangesOf(algorithm, traffic, weights, total) {
  if (algorithm.startsWith("growthbook")) {
    const isFraction = total >= 0.99 && total <= 1.01;
    let start = 0;
    return weights.map((given) => {
      const weight = isFraction ? given : tidy(given / total);
      const range = [start, start + traffic * weight];
      start += weight;
      return range;
    });
  }
  const last = weights.findLastIndex((weight) => weight > 0);
  let start = 0;
  let reached = 0;
  let added = 0;
  return weights.map((weight, place) => {
    reached += weight;
    const of = (numbers) => tidy(((reached * numbers) / total) * traffic);
    let end;
    switch (algorithm) {
      case "unleash":
        end = reached;
        break;
      case "split":
        end = Math.floor(of(100));
        break;
      case "optimizely":
      case "eppo":
        end = Math.round(of(10000));
        break;
      case "statsig":
        end = Math.round(of(1000));
        break;
      case "launchdarkly":
        added += Math.round((weight / total) * traffic * 100000) / 100000;
        end = added;
        break;
      case "posthog":
        added += tidy((weight * 100) / total) / 100;
        end = added;
        break;
      default:
        end = flagdEnd(reached, total, traffic);
    }
    if (traffic === 1 && place === last) end = Infinity;
    const range = [start, end];
    start = end;
    return range;
  });
}

function flagdEnd(reached, total, traffic) {
  if (traffic === 1 && Number.isSafeInteger(reached) && Number.isSafeInteger(total)) {
    const whole = BigInt(total);
    return Number(((BigInt(reached) << 32n) + whole - 1n) / whole);
  }
  return Math.ceil((reached / total) * traffic * TWO_32);
}

/** Removes what dividing decimal fractions leaves in the last digits. */
function tidy(number) {
  return Math.round(number * 1e12) / 1e12;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const utf8 = (text) => encoder.encode(text);
const text = (bytes) => decoder.decode(bytes);

function joined(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let place = 0;
  for (const part of parts) {
    all.set(part, place);
    place += part.length;
  }
  return all;
}

function cborHead(length) {
  if (length < 24) return Uint8Array.of(0x60 + length);
  if (length < 0x100) return Uint8Array.of(0x78, length);
  if (length < 0x10000) return Uint8Array.of(0x79, length >>> 8, length & 0xff);
  return Uint8Array.of(0x7a, length >>> 24, (length >>> 16) & 0xff, (length >>> 8) & 0xff, length & 0xff);
}

/** FNV-1a, 32 bit, over UTF-16 units. */
function fnv(text) {
  let state = 0x811c9dc5;
  for (let place = 0; place < text.length; place++) {
    state = Math.imul(state ^ text.charCodeAt(place), 0x01000193);
  }
  return state >>> 0;
}

const turnLeft = (word, bits) => (word << bits) | (word >>> (32 - bits));

/** MurmurHash3, x86, 32 bit. */
function murmur3(key, seed) {
  const mixed = (word) => Math.imul(turnLeft(Math.imul(word, 0xcc9e2d51), 15), 0x1b873593);
  const whole = key.length & ~3;
  let state = seed | 0;
  for (let place = 0; place < whole; place += 4) {
    const word = key[place] | (key[place + 1] << 8) | (key[place + 2] << 16) | (key[place + 3] << 24);
    state = (Math.imul(turnLeft(state ^ mixed(word), 13), 5) + 0xe6546b64) | 0;
  }
  let rest = 0;
  for (let place = key.length - 1; place >= whole; place--) rest = (rest << 8) | key[place];
  if (whole < key.length) state ^= mixed(rest);
  state ^= key.length;
  state = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
  state = Math.imul(state ^ (state >>> 13), 0xc2b2ae35);
  return (state ^ (state >>> 16)) >>> 0;
}

/** The blocks of a message of the MD4 family: padded to 64 bytes, with its length in bits at the end. */
function* blocks(message, isLittleEndian) {
  const padded = new Uint8Array((((message.length + 8) >>> 6) + 1) << 6);
  padded.set(message);
  padded[message.length] = 0x80;
  const view = new DataView(padded.buffer);
  const [low, high] = [(message.length << 3) >>> 0, Math.floor(message.length / 0x20000000)];
  view.setUint32(padded.length - (isLittleEndian ? 8 : 4), low, isLittleEndian);
  view.setUint32(padded.length - (isLittleEndian ? 4 : 8), high, isLittleEndian);
  for (let start = 0; start < padded.length; start += 64) {
    yield Array.from({ length: 16 }, (_, word) => view.getInt32(start + 4 * word, isLittleEndian));
  }
}

/** The first 60 bits of SHA-1 as a fraction of 1. */
function sha1Fraction(message) {
  let state = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
  for (const words of blocks(message, false)) {
    for (let n = 16; n < 80; n++) {
      words[n] = turnLeft(words[n - 3] ^ words[n - 8] ^ words[n - 14] ^ words[n - 16], 1);
    }
    let [a, b, c, d, e] = state;
    for (let n = 0; n < 80; n++) {
      let mix;
      if (n < 20) mix = ((b & c) | (~b & d)) + 0x5a827999;
      else if (n < 40) mix = (b ^ c ^ d) + 0x6ed9eba1;
      else if (n < 60) mix = ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
      else mix = (b ^ c ^ d) + 0xca62c1d6;
      const next = (turnLeft(a, 5) + mix + e + words[n]) | 0;
      [a, b, c, d, e] = [next, a, turnLeft(b, 30), c, d];
    }
    state = [a, b, c, d, e].map((word, n) => (word + state[n]) | 0);
  }
  const bits = (BigInt(state[0] >>> 0) << 28n) | BigInt(state[1] >>> 4);
  return Number(bits) / 2 ** 60;
}

const isPrime = (number) => {
  for (let by = 2; by * by <= number; by++) if (number % by === 0) return false;
  return true;
};
const PRIMES = Array.from({ length: 400 }, (_, n) => n + 2)
  .filter(isPrime)
  .slice(0, 64);
const fractionBits = (number) => Math.floor((number - Math.floor(number)) * TWO_32) | 0;
const SHA256_START = PRIMES.slice(0, 8).map((prime) => fractionBits(Math.sqrt(prime)));
const SHA256_ROUND = PRIMES.map((prime) => fractionBits(Math.cbrt(prime)));

/** The first two words of SHA-256. */
function sha256(message) {
  const right = (word, bits) => (word >>> bits) | (word << (32 - bits));
  let state = SHA256_START;
  for (const words of blocks(message, false)) {
    for (let n = 16; n < 64; n++) {
      const [x, y] = [words[n - 15], words[n - 2]];
      const low = right(x, 7) ^ right(x, 18) ^ (x >>> 3);
      const high = right(y, 17) ^ right(y, 19) ^ (y >>> 10);
      words[n] = (words[n - 16] + low + words[n - 7] + high) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let n = 0; n < 64; n++) {
      const one = right(e, 6) ^ right(e, 11) ^ right(e, 25);
      const first = (h + one + ((e & f) ^ (~e & g)) + SHA256_ROUND[n] + words[n]) | 0;
      const zero = right(a, 2) ^ right(a, 13) ^ right(a, 22);
      const second = (zero + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [a, b, c, d, e, f, g, h] = [(first + second) | 0, a, b, c, (d + first) | 0, e, f, g];
    }
    state = [a, b, c, d, e, f, g, h].map((word, n) => (word + state[n]) | 0);
  }
  return [state[0] >>> 0, state[1] >>> 0];
}

const MD5_TURNS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
const MD5_ROUND = Array.from({ length: 64 }, (_, n) => Math.floor(Math.abs(Math.sin(n + 1)) * TWO_32) | 0);

/** The first 32 bits of MD5, as they are written. */
function md5(message) {
  let state = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476];
  for (const words of blocks(message, true)) {
    let [a, b, c, d] = state;
    for (let n = 0; n < 64; n++) {
      const round = n >> 4;
      const mix = [(b & c) | (~b & d), (d & b) | (~d & c), b ^ c ^ d, c ^ (b | ~d)][round];
      const place = [n, 5 * n + 1, 3 * n + 5, 7 * n][round] & 15;
      const sum = (a + mix + MD5_ROUND[n] + words[place]) | 0;
      const next = (b + turnLeft(sum, MD5_TURNS[4 * round + (n & 3)])) | 0;
      [a, b, c, d] = [d, next, b, c];
    }
    state = [a, b, c, d].map((word, n) => (word + state[n]) | 0);
  }
  const first = new DataView(new ArrayBuffer(4));
  first.setInt32(0, state[0], true);
  return first.getUint32(0, false);
}
