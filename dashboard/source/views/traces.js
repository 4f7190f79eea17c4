// The last requests and what ran in them.
import { useMemo, useState } from "preact/hooks"
import { segment } from "../api.js"
import { clock, duration, moment, plural } from "../format.js"
import { html } from "../html.js"
import { Badge, Empty, Failure, Icon, PluginLink, Waiting } from "../parts/basics.js"
import { useDocument } from "../parts/use.js"
import { Bar } from "./startup.js"

export function Traces() {
  const [failed, setFailed] = useState(false)
  const [words, setWords] = useState("")
  const { value, problem, load } = useDocument(`traces?limit=200${failed ? "&failed=1" : ""}`, ["traces"])
  const rows = useMemo(() => (value ?? []).filter((row) => !words || `${row.name} ${row.plugins.join(" ")}`.toLowerCase().includes(words.toLowerCase())), [value, words])
  const slowest = Math.max(...rows.map((row) => row.duration), 0)
  const title = html`<h1 tabindex="-1">Traces</h1>`
  if (problem) return html`${title}<${Failure} problem=${problem} again=${load} />`
  if (!value) return html`${title}<${Waiting} what="the traces" />`
  return html`${title}
    <div class="filters">
      <label class="search"><span class="unseen">Search traces</span><${Icon} name="search" /><input type="search" placeholder="Search" value=${words} onInput=${(event) => setWords(event.target.value)} /></label>
      <label class="check"><input type="checkbox" checked=${failed} onChange=${(event) => setFailed(event.target.checked)} /> Failed only</label>
      <button type="button" onClick=${load}><${Icon} name="reload" /> Look again</button>
      <span class="muted">${plural(rows.length, "trace")}</span>
    </div>
    ${rows.length === 0
      ? html`<${Empty} title="No traces.">Requests appear here once they are answered.</${Empty}>`
      : html`<div class="table-frame"><table><caption class="unseen">The last traces, the newest first</caption>
          <thead><tr><th scope="col">Request</th><th scope="col">Status</th><th scope="col" class="mid-only">When</th><th scope="col" class="number">Took</th><th scope="col" class="track mid-only">Compared</th><th scope="col" class="mid-only">Plugins</th></tr></thead>
          <tbody>${rows.map((row) => html`<tr key=${row.id} class=${row.failed ? "failed" : ""}><th scope="row"><a href=${`#/traces/${segment(row.id)}`}>${row.name}</a></th>
            <td>${row.status ? html`<${Badge} word=${row.status} tone=${statusTone(row)} />` : row.failed ? html`<${Badge} word="failed" />` : "–"}</td>
            <td class="mid-only"><time datetime=${row.begin} title=${moment(row.begin)}>${clock(row.begin)}</time></td><td class="number">${duration(row.duration)}</td>
            <td class="track mid-only"><${Bar} begin=${0} end=${row.duration} whole=${slowest} failed=${row.failed} /></td>
            <td class="mid-only">${row.plugins.map((name, index) => html`${index > 0 && ", "}<${PluginLink} name=${name} />`)}</td></tr>`)}</tbody></table></div>`}`
}

const statusTone = ({ status, failed }) => (failed || status >= 500 ? "bad" : status >= 400 ? "warn" : "good")

export function Trace({ name }) {
  const { value, problem, load } = useDocument(`traces/${segment(name)}`)
  const [chosen, setChosen] = useState(null)
  const back = html`<p><a href="#/traces"><${Icon} name="back" /> All traces</a></p>`
  if (problem) return html`${back}<h1 tabindex="-1">Trace</h1><${Failure} problem=${problem} again=${load} />`
  if (!value) return html`${back}<h1 tabindex="-1">Trace</h1><${Waiting} what="the trace" />`
  const { trace, spans } = value
  const [ordered, depths] = treeOf(spans)
  const whole = Math.max(trace.duration, ...spans.map((span) => span.begin + span.duration))
  return html`${back}<h1 tabindex="-1">${trace.name}</h1>
    <p class="facts">${trace.status && html`<${Badge} word=${trace.status} tone=${statusTone(trace)} />`} <span>${duration(trace.duration)}</span> <span>${moment(trace.begin)}</span> <span>${plural(spans.length, "span")}</span>
      ${value.dropped > 0 && html`<span>${value.dropped} more were not kept</span>`}</p>
    <div class="table-frame"><table class="waterfall"><caption class="unseen">The spans of the trace, with the hooks that ran</caption>
      <thead><tr><th scope="col">Span</th><th scope="col" class="mid-only">Plugin</th><th scope="col" class="track">0 to ${duration(whole)}</th><th scope="col" class="number">Took</th></tr></thead>
      <tbody>${ordered.map((span) => html`<tr key=${span.id} class=${span.failed ? "failed" : ""}>
          <th scope="row"><button type="button" class=${`link depth-${Math.min(depths.get(span.id), 8)}`} aria-expanded=${chosen === span.id ? "true" : "false"} onClick=${() => setChosen(chosen === span.id ? null : span.id)}>${span.name}</button></th>
          <td class="mid-only">${span.plugin ? html`<${PluginLink} name=${span.plugin} />` : "–"}</td>
          <td class="track"><${Bar} begin=${span.begin} end=${span.begin + span.duration} whole=${whole} wave=${span.plugin ? 0 : 1} failed=${span.failed} /></td>
          <td class="number">${duration(span.duration)}</td></tr>
        ${chosen === span.id && html`<tr key=${`${span.id}+`} class="more"><td colspan="4"><dl class="pairs">
          ${Object.entries({ event: span.event, ...span.attributes }).filter(([, one]) => one !== null).map(([key, one]) => html`<dt>${key}</dt><dd>${typeof one === "object" ? JSON.stringify(one) : String(one)}</dd>`)}</dl></td></tr>`}`)}</tbody></table></div>`
}

// The spans with each one below its parent, and how deep each is. A parent that was not kept is none.
function treeOf(spans) {
  const known = new Set(spans.map((span) => span.id))
  const children = Map.groupBy(spans, (span) => (known.has(span.parent) && span.parent !== span.id ? span.parent : null))
  const ordered = []
  const depths = new Map()
  const place = (parent, depth) => {
    for (const span of children.get(parent) ?? []) {
      if (depths.has(span.id)) continue
      depths.set(span.id, depth)
      ordered.push(span)
      place(span.id, depth + 1)
    }
  }
  place(null, 0)
  return [ordered, depths]
}
