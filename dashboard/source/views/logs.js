// The log, as it is written.
import { useEffect, useMemo, useState } from "preact/hooks"
import { get } from "../api.js"
import { clock, moment, plural } from "../format.js"
import { html } from "../html.js"
import { Empty, Icon, PluginLink } from "../parts/basics.js"
import { Feed } from "../parts/feed.js"
import { useFeed } from "../parts/use.js"
import { selectors, useStore } from "../store.js"

const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
const LEVEL_TONES = { DEBUG: "quiet", INFO: "busy", WARNING: "warn", ERROR: "bad", CRITICAL: "bad" }
const KEPT = 2000

// A process that was started again counts its records from 1.
const keyOf = ({ time, id }) => `${time} ${String(id).padStart(12, "0")}`

export function Logs() {
  const [level, setLevel] = useState("INFO")
  const [plugin, setPlugin] = useState("")
  const [words, setWords] = useState("")
  const [paused, setPaused] = useState(false)
  const plugins = useStore(selectors.plugins) ?? []
  const { rows, add, clear } = useFeed("logs", { most: KEPT, paused, key: keyOf })
  useEffect(() => {
    const wanted = new URLSearchParams({ limit: 500, level: level.toLowerCase(), ...(plugin && { plugin }) })
    get(`logs?${wanted}`).then(add, () => {})
  }, [level, plugin])
  const shown = useMemo(() => {
    const least = LEVELS.indexOf(level)
    const wanted = words.toLowerCase()
    return rows.filter((row) => LEVELS.indexOf(row.level.toUpperCase()) >= least && (!plugin || row.plugin === plugin) && (!wanted || `${row.logger} ${row.message}`.toLowerCase().includes(wanted)))
  }, [rows, level, plugin, words])
  return html`<h1 tabindex="-1">Log</h1>
    <div class="filters">
      <label>Level <select value=${level} onChange=${(event) => setLevel(event.target.value)}>${LEVELS.map((one) => html`<option value=${one}>${one.toLowerCase()}</option>`)}</select></label>
      <label>Plugin <select value=${plugin} onChange=${(event) => setPlugin(event.target.value)}><option value="">all</option>${plugins.map(({ name }) => html`<option value=${name}>${name}</option>`)}</select></label>
      <label class="search"><span class="unseen">Search the log</span><${Icon} name="search" /><input type="search" placeholder="Search" value=${words} onInput=${(event) => setWords(event.target.value)} /></label>
      <button type="button" aria-pressed=${paused ? "true" : "false"} onClick=${() => setPaused(!paused)}>${paused ? "Continue" : "Pause"}</button>
      <button type="button" onClick=${clear}>Clear</button>
      <span class="muted">${plural(shown.length, "record")}</span>
    </div>
    ${shown.length === 0
      ? html`<${Empty} title="No records.">What the application logs at this level appears here.</${Empty}>`
      : html`<${Feed} label="Log records" rows=${shown} paused=${paused} row=${Line} />`}`
}

function Line({ row }) {
  const level = row.level.toUpperCase()
  return html`<li class=${`line ${LEVEL_TONES[level] ?? "quiet"}`}>
    <time datetime=${row.time} title=${moment(row.time)}>${clock(row.time)}</time>
    <span class=${`level ${LEVEL_TONES[level] ?? "quiet"}`}>${level.toLowerCase()}</span>
    <span class="who">${row.plugin ? html`<${PluginLink} name=${row.plugin} />` : row.logger}</span>
    <span class="message">${row.message}${row.traceback && html`<details><summary>Traceback</summary><pre tabindex="0" role="group" aria-label="Traceback">${row.traceback}</pre></details>`}</span>
  </li>`
}
