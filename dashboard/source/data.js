// Keeps the plugins, their measurements and the state of the application up to date.
import { get } from "./api.js"
import { listen, onGap, open } from "./live.js"
import { store } from "./store.js"

export const SAMPLES = 60
const EVERY = 3_000 // ms between two looks at the measurements while the page is seen
const TOGETHER = 150 // ms in which several changes lead to one question

export async function refresh() {
  const [status, plugins] = await Promise.all([get("status"), get("plugins")])
  restarted(status)
  store.set((s) => ({ status, session: "in", plugins: listed(plugins), history: sampled(s, listed(plugins)) }))
}

const listed = (answer) => (Array.isArray(answer) ? answer : answer.plugins)

// A server that was started again has counted nothing yet.
function restarted(status) {
  const before = store.get().status
  if (before && (before.pid !== status.pid || before.started_at !== status.started_at)) store.set({ history: new Map(), blocked: [] })
}

// One sample a plugin: its latency, and its calls since the sample before.
function sampled(state, plugins) {
  const now = Date.now()
  const history = new Map()
  for (const { name, calls, p50, p95, p99, blocked_seconds } of plugins) {
    const past = state.history.get(name) ?? []
    const before = past.at(-1)
    const sample = { at: now, calls, p50, p95, p99, blocked: blocked_seconds ?? 0, rate: null }
    if (before && now - before.at < 500) {
      history.set(name, past)
      continue
    }
    if (before && calls >= before.calls) sample.rate = ((calls - before.calls) * 1000) / (now - before.at)
    history.set(name, [...past.slice(1 - SAMPLES), sample])
  }
  return history
}

let asked = 0
let running = null
export function refreshSoon(delay = TOGETHER) {
  clearTimeout(asked)
  asked = setTimeout(async () => {
    if (running) return refreshSoon()
    running = refresh().catch(() => {})
    await running
    running = null
  }, delay)
}

export function start() {
  onGap(() => refreshSoon())
  listen("plugins", () => refreshSoon())
  listen("stats", (stats) => store.set((s) => (s.status ? { status: { ...s.status, ...known(stats) } } : {})))
  setInterval(() => {
    const { session, connection } = store.get()
    if (session === "in" && !document.hidden && connection !== "asleep") refreshSoon(0)
  }, EVERY)
  begin()
}

const known = (stats) => (stats.stats ? { stats: stats.stats } : { stats })

// Look whether this browser is logged in already; a server that is not there yet may come.
export async function begin() {
  try {
    await refresh()
    open()
  } catch (error) {
    if (error.status === 401) return
    store.set({ connection: "lost" })
    setTimeout(begin, 2_000)
  }
}
