// What happens on the server, as it happens: one stream of server-sent events for the whole page.
//
// The browser reconnects by itself after a lost connection, but not after an answer that is no
// stream (a server that is starting answers 503), so this does, with a growing pause. A page that
// is hidden for a while lets its stream go; when it is looked at again, it asks for everything anew.
import { store } from "./store.js"

const HIDDEN = 20_000 // ms until a hidden page lets its stream go
const LONGEST = 10_000 // ms between two attempts
const SILENT = 40_000 // ms without a sign of life until a stream counts as lost

const listeners = new Map()
const every = new Set()
let source = null
let topics = ""
let pause = 500
let retry = 0
let hiding = 0
let heard = 0

// Calls `listener(data, topic)` for each event of a topic; returns what ends that.
export function listen(topic, listener) {
  if (!listeners.has(topic)) listeners.set(topic, new Set())
  listeners.get(topic).add(listener)
  subscribe()
  return () => {
    listeners.get(topic).delete(listener)
    subscribe()
  }
}

// Calls `listener()` whenever events may have been missed: connected again, or some were dropped.
export function onGap(listener) {
  every.add(listener)
  return () => every.delete(listener)
}

let scheduled = 0
function subscribe() {
  clearTimeout(scheduled)
  scheduled = setTimeout(() => {
    if (wanted() !== topics && source) open()
  }, 150)
}

const wanted = () => [...listeners].filter(([, set]) => set.size).map(([topic]) => topic).sort().join(",")

export function open() {
  close()
  if (store.get().session !== "in" || document.hidden) return
  topics = wanted()
  if (!topics) return
  const mine = (source = new EventSource(`api/stream?topics=${topics}`))
  heard = Date.now()
  mine.onopen = () => {
    pause = 500
    heard = Date.now()
    const again = store.get().connection !== "live"
    store.set({ connection: "live" })
    if (again) missed()
  }
  mine.onerror = () => {
    if (mine !== source) return
    mine.close()
    source = null
    store.set({ connection: "lost" })
    again()
  }
  for (const topic of topics.split(",")) mine.addEventListener(topic, (event) => tell(topic, event))
  mine.addEventListener("reset", missed)
  mine.addEventListener("dropped", (event) => {
    heard = Date.now()
    const { count } = JSON.parse(event.data)
    store.set((s) => ({ dropped: s.dropped + count }))
    missed()
  })
}

function tell(topic, event) {
  heard = Date.now()
  const data = JSON.parse(event.data)
  for (const listener of [...(listeners.get(topic) ?? [])]) listener(data, topic)
}

// What is shown may be out of date: every view asks again.
export function missed() {
  for (const listener of [...every]) listener()
}

function again() {
  clearTimeout(retry)
  retry = setTimeout(open, pause * (0.75 + Math.random() / 2))
  pause = Math.min(pause * 1.7, LONGEST)
}

export function close() {
  clearTimeout(retry)
  source?.close()
  source = null
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding)
  if (document.hidden) {
    hiding = setTimeout(() => {
      close()
      store.set({ connection: "asleep" })
    }, HIDDEN)
  } else if (!source) open()
})
// A laptop that slept has a connection that is dead without an error.
setInterval(() => source && Date.now() - heard > SILENT && topics.includes("stats") && (store.set({ connection: "lost" }), open()), 5_000)
addEventListener("online", () => source ?? open())
