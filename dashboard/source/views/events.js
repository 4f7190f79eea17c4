// Events as they are emitted, and the catalogue of all events.
import { useMemo, useState } from "preact/hooks"
import { clock, count, plural } from "../format.js"
import { html } from "../html.js"
import { Empty, Failure, Icon, PluginLink, Waiting } from "../parts/basics.js"
import { Feed } from "../parts/feed.js"
import { useDocument, useFeed } from "../parts/use.js"

const KEPT = 1000

export function Events() {
  const [words, setWords] = useState("")
  const [paused, setPaused] = useState(false)
  const { rows, clear } = useFeed("events", { most: KEPT, paused })
  const shown = useMemo(() => rows.filter((row) => !words || `${row.event ?? row.name} ${row.plugin ?? ""}`.toLowerCase().includes(words.toLowerCase())), [rows, words])
  return html`<h1 tabindex="-1">Events</h1>
    <div class="filters">
      <label class="search"><span class="unseen">Search events</span><${Icon} name="search" /><input type="search" placeholder="Search" value=${words} onInput=${(event) => setWords(event.target.value)} /></label>
      <button type="button" aria-pressed=${paused ? "true" : "false"} onClick=${() => setPaused(!paused)}>${paused ? "Continue" : "Pause"}</button>
      <button type="button" onClick=${clear}>Clear</button>
      <span class="muted">${plural(shown.length, "event")}</span>
    </div>
    ${shown.length === 0
      ? html`<${Empty} title="No events yet.">What is emitted while you look appears here.</${Empty}>`
      : html`<${Feed} label="Events" rows=${shown} paused=${paused} row=${Line} />`}
    <${Catalogue} words=${words} />`
}

function Line({ row }) {
  return html`<li class="line"><time>${clock(row.time ?? row.at)}</time><code class="who">${row.event ?? row.name}</code>
    <span class="message">${row.plugin && html`<${PluginLink} name=${row.plugin} /> `}${row.value ?? row.summary ?? row.detail ?? ""}</span></li>`
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
