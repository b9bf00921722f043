#!/usr/bin/env node
// Runs the program of this platform's package. Signals reach it, because both are in the foreground.
"use strict";
const { spawn } = require("node:child_process");

const platform = `watershed-proxy-${process.platform}-${process.arch}`;
let program;
try {
  program = require.resolve(`${platform}/watershed`);
} catch {
  console.error(`error: there is no package ${platform}\n\nhint: build watershed on this platform: cargo install --path . --profile dist --features full`);
  process.exit(1);
}
const child = spawn(program, process.argv.slice(2), { stdio: "inherit" });
for (const name of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"]) {
  process.on(name, () => child.kill(name));
}
child.on("error", (error) => {
  console.error(`error: ${program} does not start: ${error.message}`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  if (signal) {
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  } else {
    process.exit(code);
  }
});
