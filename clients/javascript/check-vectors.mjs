/**
 * Compares this library with vectors: node check-vectors.mjs FILE…
 *
 * The files are those that ../python/check_vectors.py reads. Exits with 1 on the first difference.
 */
import { readFileSync } from "node:fs";
import { Experiment } from "./watershed-assign.mjs";

function bytesOf(encoded) {
  const parts = encoded.split(/(%[0-9A-Fa-f]{2})/);
  const bytes = parts.map((part) =>
    /^%..$/.test(part) ? Buffer.of(Number.parseInt(part.slice(1), 16)) : Buffer.from(part, "utf8"),
  );
  return new Uint8Array(Buffer.concat(bytes));
}

for (const path of process.argv.slice(2)) {
  const [header, ...lines] = readFileSync(path, "utf8").trimEnd().split("\n");
  const columns = header.split(",");
  for (const line of lines) {
    const row = Object.fromEntries(line.split(",").map((value, place) => [columns[place], value]));
    const experiment = new Experiment({
      salt: decodeURIComponent(row.salt),
      groups: row.weights.split(" ").map((pair) => {
        const [name, weight] = pair.split("=");
        return [name, Number(weight)];
      }),
      traffic: Number(row.traffic),
      algorithm: row.algorithm || "watershed",
      trafficSalt: row.traffic_salt ? decodeURIComponent(row.traffic_salt) : undefined,
    });
    const group = experiment.group(bytesOf(row.user)) ?? "outside";
    if (group !== row.group) {
      console.error(`${path}: ${group} instead of ${row.group}: ${line}`);
      process.exit(1);
    }
  }
  console.log(`${path}: ${lines.length} vectors`);
}
