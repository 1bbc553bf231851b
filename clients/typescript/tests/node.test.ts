/** The built package in Node processes of its own: run after the build. */
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
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

test("the package that npm packs is there for import, for require and for TypeScript, and needs nothing else", async () => {
  const root = new URL("..", import.meta.url).pathname;
  const inside = { cwd: directory };
  // Without scripts: the build that `npm pack` does first has been done, and this test runs beside others that use it.
  const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", directory], {
    cwd: root,
  });
  const [packed] = JSON.parse(stdout) as { filename: string }[];
  writeFileSync(join(directory, "package.json"), '{ "private": true }');
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund", `./${packed?.filename ?? ""}`], inside);
  const entries = ["@rlaas/sdk", "@rlaas/sdk/node", "@rlaas/sdk/extension"];
  const names = `console.log(Object.keys({ ...a, ...b, ...c }).sort().join())`;
  const imports = entries.map((entry, n) => `import * as ${"abc"[n] ?? ""} from "${entry}";`).join("\n");
  const requires = entries.map((entry, n) => `const ${"abc"[n] ?? ""} = require("${entry}");`).join("\n");
  const imported = await run(process.execPath, ["--input-type=module", "-e", imports + names], inside);
  const required = await run(process.execPath, ["-e", requires + names], inside);
  expect(imported.stdout).toContain("Rlaas");
  expect(required.stdout).toBe(imported.stdout);
  for (const form of ["mts", "cts"]) {
    writeFileSync(join(directory, `uses.${form}`), `${imports}\nexport const used = [a, b, c];\n`);
  }
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--lib", "es2022"];
  const types = ["--types", "node", "--typeRoots", join(root, "node_modules", "@types")];
  await run(process.execPath, [compiler, ...options, ...types, "uses.mts", "uses.cts"], inside);
}, 120_000);
