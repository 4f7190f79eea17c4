// Runs batches of tapable's and hookable's asynchronous series for dispatch.py: a line
// "library returns handlers calls" on stdin is answered with the nanoseconds that it took.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { createHooks } from 'hookable'

const require = createRequire(import.meta.url)
const { AsyncSeriesWaterfallHook } = require('tapable')
const fs = require('node:fs')
const version = name =>
  JSON.parse(fs.readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version

const handler = returns => (returns ? async v => v + 1 : async v => {})

const libraries = {
  tapable(returns, count) {
    const hook = new AsyncSeriesWaterfallHook(['v'])
    for (let i = 0; i < count; i++) hook.tapPromise(`h${i}`, handler(returns))
    return async n => { for (let i = 0; i < n; i++) await hook.promise(1) }
  },
  hookable(returns, count) {
    const hooks = createHooks()
    for (let i = 0; i < count; i++) hooks.hook('event', handler(returns))
    return async n => { for (let i = 0; i < n; i++) await hooks.callHook('event', 1) }
  },
}

const ready = new Map()
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'version') {
    console.log(`Node ${process.versions.node}, tapable ${version('tapable')}, hookable ${version('hookable')}`)
    continue
  }
  const [library, returns, count, calls] = line.split(' ')
  const key = `${library} ${returns} ${count}`
  if (!ready.has(key)) {
    ready.set(key, libraries[library](returns === '1', Number(count)))
    await ready.get(key)(20000)
  }
  const start = process.hrtime.bigint()
  await ready.get(key)(Number(calls))
  console.log(String(process.hrtime.bigint() - start))
}
