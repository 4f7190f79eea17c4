// Builds the dashboard: one script, one style sheet and the page, into the Python package.
// `node build.mjs [folder]`; the same sources and lock file make the same bytes.
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { build } from "esbuild"

const here = dirname(fileURLToPath(import.meta.url))
const target = process.argv[2] ?? join(here, "../plugins/veko_plugins/admin/dashboard/assets")

await rm(target, { recursive: true, force: true })
await mkdir(target, { recursive: true })
await build({
  absWorkingDir: here,
  entryPoints: { app: "source/main.js" },
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  charset: "utf8",
  legalComments: "none",
})
await copyFile(join(here, "source/index.html"), join(target, "index.html"))
await writeFile(join(target, "LICENSES.txt"), await licenses())
for (const name of ["app.js", "app.css"]) {
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
