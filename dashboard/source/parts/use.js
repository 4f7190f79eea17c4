import { useCallback, useEffect, useRef, useState } from "preact/hooks"
import { get } from "../api.js"
import { listen, onGap } from "../live.js"

// Loads a document when a view opens, and again when something of these topics happens.
export function useDocument(path, topics = []) {
  const [state, setState] = useState({ value: null, problem: null })
  const timer = useRef(0)
  const current = useRef(path)
  current.current = path
  const load = useCallback(async () => {
    try {
      const value = await get(path)
      if (current.current === path) setState({ value, problem: null })
      return value
    } catch (problem) {
      if (current.current === path) setState((before) => ({ value: before.value, problem }))
      return null
    }
  }, [path])
  useEffect(() => {
    const soon = () => {
      clearTimeout(timer.current)
      timer.current = setTimeout(load, 200)
    }
    load()
    const ends = [onGap(soon), ...topics.map((topic) => listen(topic, soon))]
    return () => {
      clearTimeout(timer.current)
      for (const end of ends) end()
    }
  }, [load])
  return { ...state, load }
}

// Loads a library when the first view that needs it opens: `load` is `() => import(…)`.
export function useLibrary(load) {
  const [state, setState] = useState({ library: null, problem: null })
  useEffect(() => {
    let here = true
    const settle = (found) => here && setState(found)
    load().then(
      (library) => settle({ library, problem: null }),
      // Its file is gone if the application was updated meanwhile.
      () => settle({ library: null, problem: { message: "This cannot be drawn.", remedy: "Load this page again." } }),
    )
    return () => (here = false)
  }, [])
  return state
}

// Collects what a topic sends, the newest last, and shows it a few times a second at most. `key`
// tells rows apart, and their order, where they come in two ways.
export function useFeed(topic, { most = 1000, paused = false, key = null, unpack = (data) => [data] } = {}) {
  const [rows, setRows] = useState([])
  const kept = useRef([])
  const timer = useRef(0)
  const stopped = useRef(paused)
  stopped.current = paused
  const show = () => {
    timer.current = 0
    if (!stopped.current) setRows(kept.current)
  }
  const add = useCallback((more) => {
    const known = key ? new Set(kept.current.map(key)) : null
    const fresh = known ? more.filter((row) => !known.has(key(row))) : more
    if (!fresh.length) return
    const rows = [...kept.current, ...fresh]
    if (key) rows.sort((one, other) => (key(one) < key(other) ? -1 : 1))
    kept.current = rows.slice(-most)
    timer.current ||= setTimeout(show, 200)
  }, [])
  useEffect(() => {
    const buffer = []
    let flushing = 0
    const end = listen(topic, (data) => {
      buffer.push(...unpack(data))
      if (buffer.length > most) buffer.splice(0, buffer.length - most)
      flushing ||= setTimeout(() => ((flushing = 0), add(buffer.splice(0))), 100)
    })
    return () => {
      end()
      clearTimeout(flushing)
      clearTimeout(timer.current)
    }
  }, [topic])
  useEffect(() => {
    if (!paused) show()
  }, [paused])
  const clear = () => {
    kept.current = []
    setRows([])
  }
  return { rows, add, clear }
}
