/** The built package in Node processes of its own: run after the build. */
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";

import { Rlaas } from "../src/index.js";
import { fileSpool } from "../src/node.js";
import { KEY, Service } from "./service.js";

const run = promisify(execFile);
let service: Service;
let directory: string;
beforeEach(async () => {
  service = await new Service().start();
  directory = mkdtempSync(join(tmpdir(), "rlaas-spool-"));
});
afterEach(async () => {
  await service.stop();
  rmSync(directory, { recursive: true });
});

const rating = `rlaas.submitFeedback({ skill: "greet", interaction_id: "int_1", kind: "rating", rating: 1 });`;

function program(apiUrl: string, rest: string): string[] {
  const head = `
    import { Rlaas } from "@rlaas/sdk";
    import { fileSpool } from "@rlaas/sdk/node";
    const options = { apiUrl: "${apiUrl}", apiKey: "${KEY}", spool: fileSpool("${directory}"), log() {} };
    const rlaas = new Rlaas(options);`;
  return ["--input-type=module", "-e", head + rest];
}

test("what a process had submitted when it was killed is delivered by the next", async () => {
  const offline = "http://127.0.0.1:1";
  const killed = spawn(process.execPath, program(offline, `${rating} ${rating} process.kill(process.pid, "SIGKILL");`));
  const signal = await new Promise((resolve) =>
    killed.on("exit", (_, by) => {
      resolve(by);
    }),
  );
  expect(signal).toBe("SIGKILL");
  const left = readdirSync(directory);
  expect(left).toHaveLength(2);
  expect(statSync(join(directory, left[0] ?? "")).mode & 0o777).toBe(0o600);
  const owner = `${offline} ${KEY.slice(0, KEY.lastIndexOf("_"))}`;
  const next = new Rlaas({ apiUrl: service.url, apiKey: KEY, owner, spool: fileSpool(directory) });
  expect(await next.close()).toBe(true);
  expect(service.stored.size).toBe(2);
  expect(readdirSync(directory)).toEqual([]);
});

test("a process that ends delivers first, and does not live on for what cannot be delivered", async () => {
  await run(process.execPath, program(service.url, rating));
  expect(service.stored.size).toBe(1);
  await run(process.execPath, program(service.url, `${rating} process.exit();`));
  expect(readdirSync(directory)).toHaveLength(1);
});

test("the package is there for import and for require, and needs nothing else", async () => {
  const entries = ["@rlaas/sdk", "@rlaas/sdk/node", "@rlaas/sdk/extension"];
  const names = `Object.keys(sdk).join()`;
  for (const entry of entries) {
    const esm = await run(process.execPath, [
      "--input-type=module",
      "-e",
      `import * as sdk from "${entry}"; console.log(${names})`,
    ]);
    const cjs = await run(process.execPath, ["-e", `const sdk = require("${entry}"); console.log(${names})`]);
    expect(esm.stdout.trim().split(",").sort()).toEqual(cjs.stdout.trim().split(",").sort());
  }
});
