// Small parts that every view uses.
import { html } from "../html.js"

const DRAWN = {
  plugins: "M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z",
  graph: "M5 4h5v5H5zM14 15h5v5h-5zM14 4h5v5h-5zM7.5 9v8.5H14M16.500 9v6",
  startup: "M4 6h8M8 12h8M12 18h8",
  traces: "M3 12h4l3-8 4 16 3-8h4",
  logs: "M5 5h14M5 10h14M5 15h9M5 20h6",
  events: "M13 3 5 14h6l-1 7 8-11h-6z",
  changes: "M4 12a8 8 0 1 0 2.500-5.800M4 4v4h4M12 8v4l3 2",
  reload: "M20 12a8 8 0 1 1-2.500-5.800M20 4v4h-4",
  close: "M6 6l12 12M18 6 6 18",
  warning: "M12 4 2.500 20h19zM12 10v4M12 17v.5",
  unload: "M12 3v10M8 9l4 4 4-4M5 17v3h14v-3",
  load: "M12 14V4M8 8l4-4 4 4M5 17v3h14v-3",
  leave: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600 19 19M19 5l-1.400 1.400M6.400 17.600 5 19",
  dark: "M20 14A8.500 8.500 0 0 1 10 4a8.500 8.500 0 1 0 10 10z",
  auto: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  undo: "M4 9h10a5 5 0 0 1 0 10H8M8 5 4 9l4 4",
  back: "M15 5l-7 7 7 7",
  run: "M7 5v14l12-7z",
  search: "M10.500 4a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13zM15.500 15.500 20 20",
}

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${DRAWN[name]} /></svg>`
}

const TONES = {
  active: "good", healthy: "good", running: "good", serving: "good", ok: "good", done: "good",
  inactive: "quiet", unloaded: "quiet", discovered: "quiet", resolved: "quiet", off: "quiet", undone: "quiet", debug: "quiet",
  loading: "busy", unloading: "busy", starting: "busy", stopping: "busy", reload: "busy", info: "busy", configure: "busy",
  warning: "warn", degraded: "warn",
  failed: "bad", critical: "bad", unhealthy: "bad", error: "bad", crashed: "bad",
}
export const tone = (word) => TONES[String(word).toLowerCase()] ?? "quiet"

export function Badge({ word, tone: given, title }) {
  return html`<span class=${`badge ${given ?? tone(word)}`} title=${title}>${word}</span>`
}

export function Empty({ title, children }) {
  return html`<div class="empty"><p class="empty-title">${title}</p>${children && html`<p>${children}</p>`}</div>`
}

export function Failure({ problem, again }) {
  return html`<div class="failure" role="alert">
    <p><${Icon} name="warning" /> <strong>${problem.message}</strong></p>
    ${problem.remedy && html`<p>${problem.remedy}</p>`}
    ${again && html`<p><button type="button" onClick=${again}>Try again</button></p>`}
  </div>`
}

export const Waiting = ({ what }) => html`<p class="waiting" role="status">Loading ${what} …</p>`

export function Switch({ on, label, disabled, busy, onClick }) {
  return html`<button type="button" role="switch" class="switch" aria-checked=${on ? "true" : "false"} aria-label=${label}
    aria-busy=${busy ? "true" : null} disabled=${disabled} onClick=${onClick}><span aria-hidden="true"></span></button>`
}

// Link to a plugin's page.
export const PluginLink = ({ name }) => html`<a href=${`#/plugins/${encodeURIComponent(name)}`}>${name}</a>`

const MOST = 60 // values from the left to the right

// The last values of something, drawn without axes; the newest is at the right.
export function Sparkline({ values, label, width = 88, height = 22 }) {
  const known = values.filter((value) => value !== null)
  if (!known.length) return html`<span class="spark none" aria-hidden="true"></span>`
  const highest = Math.max(...known) || 1
  const step = width / MOST
  const at = (value) => (height - 2 - (value / highest) * (height - 4)).toFixed(1)
  let line = ""
  values.forEach((value, index) => {
    if (value === null) return // nothing was called
    const x = (width - (values.length - index) * step).toFixed(1)
    const joined = index > 0 && values[index - 1] !== null
    line += joined ? `L${x} ${at(value)}` : `M${x} ${at(value)}l0 0`
  })
  return html`<svg class="spark" role="img" aria-label=${label} viewBox=${`0 0 ${width} ${height}`} width=${width} height=${height}>
    <path class="spark-line" d=${line} />
  </svg>`
}
