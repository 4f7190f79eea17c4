// When each plugin was loaded, and what it waited for.
import { useState } from "preact/hooks"
import { duration, plural } from "../format.js"
import { html } from "../html.js"
import { Empty, Failure, PluginLink, Waiting } from "../parts/basics.js"
import { useDocument } from "../parts/use.js"

export function Startup() {
  const [core, setCore] = useState(false)
  const { value, problem, load } = useDocument(core ? "startup?core=1" : "startup", ["plugins"])
  const title = html`<h1 tabindex="-1">Start</h1>`
  if (problem && !value) return html`${title}<${Failure} problem=${problem} again=${load} />`
  if (!value) return html`${title}<${Waiting} what="the start" />`
  const steps = value.filter((step) => (core || !step.core) && !step.reloaded).sort((a, b) => a.begin - b.begin || a.end - b.end)
  const later = value.filter((step) => step.reloaded && (core || !step.core))
  const end = Math.max(...steps.map((step) => step.end), 0)
  return html`${title}
    <div class="filters"><label class="check"><input type="checkbox" checked=${core} onChange=${(event) => setCore(event.target.checked)} /> Show the parts of Veko</label>
      <span class="muted">${plural(steps.length, "plugin")} in ${duration(end)}</span></div>
    ${steps.length === 0
      ? html`<${Empty} title="Nothing was loaded at the start." />`
      : html`<div class="table-frame"><table class="waterfall"><caption class="unseen">Loading at the start: when each plugin began and how long it took</caption>
          <thead><tr><th scope="col">Plugin</th><th scope="col" class="track">0 to ${duration(end)}</th><th scope="col" class="number">Took</th><th scope="col" class="mid-only">Waited for</th></tr></thead>
          <tbody>${steps.map((step) => html`<tr key=${step.plugin}><th scope="row"><${PluginLink} name=${step.plugin} /></th>
            <td class="track"><${Bar} begin=${step.begin} end=${step.end} whole=${end} wave=${step.wave} /></td>
            <td class="number">${duration(step.end - step.begin)}</td>
            <td class="mid-only">${step.waited_for ? html`<${PluginLink} name=${step.waited_for} />` : html`<span class="muted">–</span>`}</td></tr>`)}</tbody></table></div>`}
    ${later.length > 0 && html`<p class="muted">Loaded again since then: ${later.map((step, index) => html`${index > 0 && ", "}<${PluginLink} name=${step.plugin} />`)}</p>`}`
}

export function Bar({ begin, end, whole, wave = 0, failed = false }) {
  const left = whole ? (begin / whole) * 100 : 0
  const width = whole ? ((end - begin) / whole) * 100 : 0
  return html`<span class=${`bar wave-${wave % 4} ${failed ? "failed" : ""}`} style=${{ marginLeft: `${Math.min(left, 99.5)}%`, width: `${Math.max(width, 0.4)}%` }}></span>`
}
