// Builds the dashboard into the Python package: one script, one style sheet and the page, and a file
// of its own for each library that only some views need.
// `node build.mjs [folder]`; the same sources and lock file make the same bytes.
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { build } from "esbuild"

const here = dirname(fileURLToPath(import.meta.url))
const target = process.argv[2] ?? join(here, "../plugins/veko_plugins/admin/dashboard/assets")

await rm(target, { recursive: true, force: true })
await mkdir(target, { recursive: true })
const settings = {
  absWorkingDir: here,
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  charset: "utf8",
  legalComments: "none",
}
const { metafile } = await build({
  ...settings,
  entryPoints: { layout: "source/libraries/layout.js", plot: "source/libraries/plot.js" },
  entryNames: "[name].[hash]",
  metafile: true,
})
// By source. They are no chunks of the script: what both shared would be one more file to wait for.
const libraries = new Map(Object.entries(metafile.outputs).map(([path, { entryPoint }]) => [basename(entryPoint), basename(path)]))
const byName = {
  name: "libraries",
  setup: ({ onResolve }) =>
    onResolve({ filter: /\/libraries\/\w+\.js$/ }, ({ kind, path }) => (kind === "dynamic-import" ? { path: `./${libraries.get(basename(path))}`, external: true } : null)),
}
await build({ ...settings, entryPoints: { app: "source/main.js" }, plugins: [byName] })
await copyFile(join(here, "source/index.html"), join(target, "index.html"))
await writeFile(join(target, "LICENSES.txt"), await licenses())
for (const name of ["app.js", "app.css", ...libraries.values()]) {
  const content = await readFile(join(target, name))
  console.log(`${name}: ${content.length} bytes, ${gzipSync(content, { level: 9 }).length} with gzip`)
}

// The licences of the libraries in the bundle require their text to go with it.
async function licenses() {
  const { packages } = JSON.parse(await readFile(join(here, "package-lock.json"), "utf8"))
  const texts = []
  for (const [path, { version, dev }] of Object.entries(packages).sort()) {
    if (!path || dev) continue
    const text = await readFile(join(here, path, "LICENSE"), "utf8").catch(() => readFile(join(here, path, "LICENSE.md"), "utf8"))
    texts.push(`${path.replace("node_modules/", "")} ${version}\n\n${text.trim()}\n`)
  }
  return texts.join(`\n${"-".repeat(80)}\n\n`)
}
