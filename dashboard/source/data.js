// Keeps the plugins, their measurements and the state of the application up to date.
import { get } from "./api.js"
import { listen, onGap, open } from "./live.js"
import { store } from "./store.js"

export const SAMPLES = 60
const EVERY = 5_000 // ms between two questions while nothing comes over the stream
const TOGETHER = 150 // ms in which several changes lead to one question

export async function refresh() {
  const [status, plugins] = await Promise.all([get("status"), get("plugins")])
  restarted(status)
  store.set((s) => {
    const rows = kept(s.plugins, listed(plugins))
    return { status, session: "in", plugins: rows, history: sampled(s, rows) }
  })
}

const listed = (answer) => (Array.isArray(answer) ? answer : answer.plugins)

// The rows as they are now; one that is as it was is the same object, and so is not drawn again.
function kept(before, rows) {
  const known = new Map((before ?? []).map((row) => [row.name, row]))
  return rows.map((row) => {
    const [was, now] = [known.get(row.name), { recent: null, ...row }]
    return was && same(was, now) ? was : now
  })
}

const same = (one, other) => Object.keys(other).every((key) => one[key] === other[key] || JSON.stringify(one[key]) === JSON.stringify(other[key]))

// A server that was started again has counted nothing yet.
function restarted(status) {
  const before = store.get().status
  if (before && (before.pid !== status.pid || before.started_at !== status.started_at)) store.set({ history: new Map(), blocked: [] })
}

// What the stream measures of each plugin goes into its row; a plugin that is new is asked for.
function measured({ status, plugins }) {
  const { plugins: rows } = store.get()
  restarted(status)
  if (!rows) return
  const fresh = new Map(plugins.map((one) => [one.name, one]))
  if (rows.length !== fresh.size || rows.some((row) => !fresh.has(row.name))) refreshSoon()
  const merged = rows.map((row) => (same(row, fresh.get(row.name) ?? {}) ? row : { ...row, ...fresh.get(row.name) }))
  store.set((s) => ({ status: { ...s.status, ...status, role: s.status.role }, plugins: merged, history: sampled(s, merged) }))
}

// One sample a plugin: its latency as measured since the sample before, and its calls.
function sampled(state, plugins) {
  const now = Date.now()
  const history = new Map()
  for (const { name, calls, p95, recent = null } of plugins) {
    const past = state.history.get(name) ?? []
    const before = past.at(-1)
    if (before && now - before.at < 500) {
      history.set(name, past)
      continue
    }
    const rate = before && calls >= before.calls ? ((calls - before.calls) * 1000) / (now - before.at) : null
    history.set(name, [...past.slice(1 - SAMPLES), { at: now, calls, p95, recent, rate }])
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
  listen("stats", measured)
  setInterval(() => {
    const { session, connection } = store.get()
    if (session === "in" && !document.hidden && connection === "lost") refreshSoon(0)
  }, EVERY)
  begin()
}

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
