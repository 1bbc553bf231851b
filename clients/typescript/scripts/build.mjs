/**
 * Compiles src/ twice, to dist/esm and dist/cjs, each with its types: no bundler, so that yours can leave out what is
 * not used.
 */
import { execFileSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const compiler = createRequire(import.meta.url).resolve("typescript/bin/tsc");
const forms = {
  esm: { type: "module", flags: ["--module", "NodeNext", "--moduleResolution", "NodeNext"] },
  cjs: {
    type: "commonjs",
    flags: [
      "--module",
      "CommonJS",
      "--moduleResolution",
      "Node10",
      "--verbatimModuleSyntax",
      "false",
      "--esModuleInterop",
    ],
  },
};
rmSync("dist", { recursive: true, force: true });
for (const [form, { type, flags }] of Object.entries(forms)) {
  const out = ["-p", "tsconfig.build.json", "--outDir", `dist/${form}`, ...flags];
  execFileSync(process.execPath, [compiler, ...out], { stdio: "inherit" });
  writeFileSync(`dist/${form}/package.json`, `${JSON.stringify({ type, sideEffects: false })}\n`);
}
