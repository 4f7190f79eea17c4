// Events as they are emitted, and the catalogue of all events.
import { useMemo, useState } from "preact/hooks"
import { clock, count, plural } from "../format.js"
import { html } from "../html.js"
import { Empty, Failure, Icon, PluginLink, Waiting } from "../parts/basics.js"
import { Feed } from "../parts/feed.js"
import { useDocument, useFeed } from "../parts/use.js"

const KEPT = 1000

// A message has the latest events and how many more there were of which name.
const unpacked = ({ counts, latest, more }) => {
  const rows = latest.map((row) => ({ ...row, key: ++last }))
  if (!more) return rows
  const shown = latest.reduce((sums, { event }) => sums.set(event, (sums.get(event) ?? 0) + 1), new Map())
  const left = Object.entries(counts).map(([event, number]) => [event, number - (shown.get(event) ?? 0)])
  return [...rows, ...left.filter(([, number]) => number > 0).map(([event, number]) => ({ time: Date.now() / 1000, event, number, key: ++last }))]
}
let last = 0

export function Events() {
  const [words, setWords] = useState("")
  const [paused, setPaused] = useState(false)
  const { rows, clear } = useFeed("events", { most: KEPT, paused, unpack: unpacked })
  const shown = useMemo(() => rows.filter((row) => !words || `${row.event} ${row.plugin ?? ""}`.toLowerCase().includes(words.toLowerCase())), [rows, words])
  return html`<h1 tabindex="-1">Events</h1>
    <div class="filters">
      <label class="search"><span class="unseen">Search events</span><${Icon} name="search" /><input type="search" placeholder="Search" value=${words} onInput=${(event) => setWords(event.target.value)} /></label>
      <button type="button" aria-pressed=${paused ? "true" : "false"} onClick=${() => setPaused(!paused)}>${paused ? "Continue" : "Pause"}</button>
      <button type="button" onClick=${clear}>Clear</button>
      <span class="muted">${plural(shown.length, "event")}</span>
    </div>
    <div class="events">${shown.length === 0
      ? html`<${Empty} title="No events yet.">What is emitted while you look appears here.</${Empty}>`
      : html`<${Feed} label="Events" rows=${shown} paused=${paused} row=${Line} />`}</div>
    <${Catalogue} words=${words} />`
}

function Line({ row }) {
  return html`<li class="line"><time>${clock(row.time)}</time><code class="who">${row.event}</code>
    <span class="message">${row.plugin && html`<${PluginLink} name=${row.plugin} />`}${row.number && `and ${count(row.number)} more`}</span></li>`
}

function Catalogue({ words }) {
  const { value, problem, load } = useDocument("events", ["plugins"])
  if (problem && !value) return html`<${Failure} problem=${problem} again=${load} />`
  if (!value) return html`<${Waiting} what="the catalogue" />`
  const shown = value.filter((row) => !words || row.name.toLowerCase().includes(words.toLowerCase()))
  return html`<section aria-labelledby="catalogue"><h2 id="catalogue">All events</h2>
    <div class="table-frame"><table><caption class="unseen">The catalogue of events</caption>
      <thead><tr><th scope="col">Event</th><th scope="col">Payload</th><th scope="col" class="number">Handlers</th><th scope="col" class="mid-only">What it says</th></tr></thead>
      <tbody>${shown.map((row) => html`<tr key=${row.name}><th scope="row"><code>${row.name}</code></th><td><code>${row.payload}</code></td><td class="number">${count(row.hooks)}</td>
        <td class="mid-only prose">${row.doc}${row.fails_closed && " A handler that fails ends it."}</td></tr>`)}</tbody></table></div></section>`
}
