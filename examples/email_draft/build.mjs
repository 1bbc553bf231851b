/**
 * Bundles the page into dist/. The SDK is linked from this repository, where its tests have a React of their own; the
 * alias makes it share the page's React.
 */
import { copyFileSync } from "node:fs";

import { build } from "esbuild";

await build({
  entryPoints: ["web/app.tsx"],
  outdir: "dist",
  bundle: true,
  minify: true,
  sourcemap: "linked",
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  alias: { react: "./node_modules/react" },
  define: { "process.env.NODE_ENV": '"production"' },
});
for (const file of ["index.html", "app.css"]) copyFileSync(`web/${file}`, `dist/${file}`);
