/**
 * Prints what each entry weighs, bundled, minified and gzipped; fails when the core is over its bound. Run after the
 * build.
 */
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

const CORE_BYTES = 8.5 * 1024;

async function gzipped(code) {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: "." },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    external: ["react", "node:*"],
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

const core = await gzipped('export * from "./dist/esm/index.js"');
const sizes = {
  "@rlaas/sdk, everything": core,
  "@rlaas/sdk, { Rlaas } alone": await gzipped('export { Rlaas } from "./dist/esm/index.js"'),
  "@rlaas/sdk, { wrapOpenAI } alone": await gzipped('export { wrapOpenAI } from "./dist/esm/index.js"'),
  "@rlaas/sdk/react": await gzipped('export * from "./dist/esm/react.js"'),
  "@rlaas/sdk/extension": await gzipped('export * from "./dist/esm/extension.js"'),
  "@rlaas/sdk/node": await gzipped('export * from "./dist/esm/node.js"'),
};
for (const [name, bytes] of Object.entries(sizes)) console.log(`${String(bytes).padStart(6)} bytes gzipped  ${name}`);
if (core > CORE_BYTES) {
  console.error(`the core is ${core} bytes gzipped, over its bound of ${CORE_BYTES}`);
  process.exit(1);
}
