// What the whole page knows. Components subscribe to the part that they show.
import { useEffect, useReducer } from "preact/hooks"

export function createStore(initial) {
  let state = initial
  const listeners = new Set()
  return {
    get: () => state,
    set(change) {
      state = { ...state, ...(typeof change === "function" ? change(state) : change) }
      for (const listener of [...listeners]) listener()
    },
    subscribe(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

export const store = createStore({
  session: "unknown", // unknown | out | in
  connection: "connecting", // connecting | live | lost | asleep
  status: null,
  plugins: null,
  history: new Map(), // by plugin: the last samples of its latency
  blocked: [], // what the watchdog reported, newest first
  dropped: 0, // events that the server left out because this page was too slow
  notices: [],
  theme: localStorage.getItem("veko-theme") ?? "auto",
})

export function useStore(select) {
  const [, again] = useReducer((count) => count + 1, 0)
  const selected = select(store.get())
  useEffect(() => {
    let last = selected
    const check = () => {
      const now = select(store.get())
      if (now !== last) again((last = now))
    }
    check()
    return store.subscribe(check)
  }, [select])
  return selected
}

export const selectors = {
  session: (s) => s.session,
  connection: (s) => s.connection,
  status: (s) => s.status,
  plugins: (s) => s.plugins,
  history: (s) => s.history,
  blocked: (s) => s.blocked,
  dropped: (s) => s.dropped,
  notices: (s) => s.notices,
  theme: (s) => s.theme,
  operator: (s) => s.status?.role === "operate",
}
