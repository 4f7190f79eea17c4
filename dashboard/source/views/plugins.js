// All plugins: state, health, latency, and which of them blocked the event loop.
import { useEffect, useLayoutEffect, useMemo, useState } from "preact/hooks"
import { actions, propose } from "../actions.js"
import { count, duration, percent, plural } from "../format.js"
import { html, memo } from "../html.js"
import { Badge, Empty, Icon, PluginLink, Sparkline, Switch, Waiting } from "../parts/basics.js"
import { LoadDialog } from "../parts/load.js"
import { selectors, useStore } from "../store.js"

const FIRST = 250 // rows; a thousand are shown when asked for
const AT_ONCE = 25 // rows of the first picture; the others come right after it

const SORTS = {
  name: (a, b) => a.name.localeCompare(b.name),
  state: (a, b) => severity(b) - severity(a) || SORTS.name(a, b),
  calls: (a, b) => (b.calls ?? 0) - (a.calls ?? 0),
  p95: (a, b) => (b.p95 ?? -1) - (a.p95 ?? -1),
  cpu: (a, b) => (b.cpu ?? 0) - (a.cpu ?? 0),
  blocked: (a, b) => (b.blocked_seconds ?? 0) - (a.blocked_seconds ?? 0),
  errors: (a, b) => errors(b) - errors(a),
}
const errors = (row) => row.error_count
const severity = (row) => (row.state === "failed" ? 4 : row.health === "critical" ? 3 : row.health === "warning" ? 2 : row.state === "active" ? 0 : 1)

export function Plugins() {
  const plugins = useStore(selectors.plugins)
  const status = useStore(selectors.status)
  const operator = useStore(selectors.operator)
  const [filter, setFilter] = useState("")
  const [state, setState] = useState("all")
  const [sort, setSort] = useState("name")
  const [all, setAll] = useState(false)
  const [loading, setLoading] = useState(false)
  const [seen, setSeen] = useState(false)
  const loaded = plugins !== null
  useEffect(() => {
    if (!loaded || seen) return undefined
    const frame = requestAnimationFrame(() => setTimeout(() => setSeen(true)))
    const late = setTimeout(() => setSeen(true), 500) // a hidden page has no frames
    return () => (cancelAnimationFrame(frame), clearTimeout(late))
  }, [loaded, seen])
  const rows = useMemo(() => shown(plugins ?? [], filter, state, sort), [plugins, filter, state, sort])
  if (!plugins) return html`<h1 tabindex="-1">Plugins</h1><${Waiting} what="the plugins" />`
  const visible = rows.slice(0, all ? rows.length : seen ? FIRST : AT_ONCE)
  return html`<div class="title-row"><h1 tabindex="-1">Plugins</h1>
      <button type="button" disabled=${!operator} onClick=${() => setLoading(true)}><${Icon} name="load" /> Load a plugin</button></div>
    <${Summary} status=${status} plugins=${plugins} />
    <${Blockers} plugins=${plugins} />
    <div class="filters" role="search">
      <label class="search"><span class="unseen">Search plugins</span><${Icon} name="search" />
        <input type="search" placeholder="Search" value=${filter} onInput=${(event) => setFilter(event.target.value)} /></label>
      <label>Show <select value=${state} onChange=${(event) => setState(event.target.value)}>
        <option value="all">all</option><option value="active">active</option><option value="off">off</option><option value="trouble">with trouble</option></select></label>
      <label>Sort by <select value=${sort} onChange=${(event) => setSort(event.target.value)}>
        <option value="name">name</option><option value="state">trouble</option><option value="calls">calls</option><option value="p95">latency</option>
        <option value="cpu">processor</option><option value="blocked">blocked</option><option value="errors">errors</option></select></label>
      <span class="muted" role="status">${rows.length === plugins.length ? plural(plugins.length, "plugin") : `${count(rows.length)} of ${plural(plugins.length, "plugin")}`}</span>
    </div>
    ${rows.length === 0
      ? html`<${Empty} title=${plugins.length ? "No plugin matches." : "No plugin is loaded."}>${plugins.length ? "Change the search or the filter." : "Load one by its name or path."}</${Empty}>`
      : html`<${Table} rows=${visible} operator=${operator} />`}
    ${seen && rows.length > visible.length && html`<p><button type="button" onClick=${() => setAll(true)}>Show all ${count(rows.length)} plugins</button></p>`}
    ${loading && html`<${LoadDialog} onClose=${() => setLoading(false)} />`}`
}

function shown(plugins, filter, state, sort) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean)
  return plugins
    .filter((row) => words.every((word) => row.name.toLowerCase().includes(word) || row.description?.toLowerCase().includes(word) || row.type === word))
    .filter((row) => state === "all" || (state === "active" ? row.active : state === "off" ? !row.active : severity(row) > 1 || errors(row) > 0))
    .sort(SORTS[sort])
}

function Summary({ status, plugins }) {
  const stats = status?.stats
  if (!stats) return null
  const failed = plugins.filter((row) => row.state === "failed").length
  const facts = [
    ["Active", `${count(stats.active)} of ${count(stats.total)}`, ""],
    ["Failed", count(failed), failed ? "bad" : ""],
    ["Routes", count(stats.routes), ""],
    ["Hooks", count(stats.hook_callbacks ?? stats.hooks), ""],
    ["Errors", count(stats.errors), stats.errors ? "warn" : ""],
  ]
  return html`<dl class="summary">${facts.map(([name, value, mark]) => html`<div key=${name} class=${mark}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`
}

// The plugins that held the event loop, so that everybody else had to wait.
function Blockers({ plugins }) {
  const blockers = plugins.filter((row) => row.blocked_seconds > 0).sort(SORTS.blocked).slice(0, 5)
  if (!blockers.length) return null
  const most = blockers[0].blocked_seconds
  return html`<section class="blockers" aria-labelledby="blockers"><h2 id="blockers">Who blocked the event loop</h2>
    <ul>${blockers.map((row) => html`<li key=${row.name}><${PluginLink} name=${row.name} />
      <meter min="0" max=${most} value=${row.blocked_seconds} aria-label=${`${row.name} blocked the event loop`}></meter>
      <span class="number">${duration(row.blocked_seconds)}</span></li>`)}</ul></section>`
}

const NONE = [] // the history of a plugin that nothing was measured of, whose row need not be drawn again
const measuredOf = (history, name) => {
  const samples = history.get(name)
  return samples?.some(({ recent }) => recent !== null) ? samples : NONE
}

function Table({ rows, operator }) {
  const history = useStore(selectors.history)
  useLayoutEffect(() => {
    performance.mark("veko-list") // benchmarks/dashboard.py reads it
  }, [])
  return html`<div class="table-frame"><table class="plugins">
    <caption class="unseen">Plugins with their state and measurements</caption>
    <thead><tr><th scope="col">Plugin</th><th scope="col">State</th><th scope="col" class="wide-only">Health</th><th scope="col" class="number wide-only">Calls</th>
      <th scope="col" class="number mid-only">95 % within</th><th scope="col" class="mid-only">Latency</th><th scope="col" class="number widest-only">Processor</th><th scope="col" class="number wide-only">Blocked</th>
      <th scope="col" class="number mid-only">Errors</th><th scope="col">On</th><th scope="col"><span class="unseen">Actions</span></th></tr></thead>
    <tbody>${rows.map((row) => html`<${Row} key=${row.name} row=${row} history=${measuredOf(history, row.name)} operator=${operator} />`)}</tbody>
  </table></div>`
}

const Row = memo(({ row, history, operator }) => {
  const failures = errors(row)
  return html`<tr class=${row.active ? "" : "off"}>
    <th scope="row"><${PluginLink} name=${row.name} /> <span class="muted version">${row.version}</span>
      ${row.description && html`<span class="description">${row.description}</span>`}</th>
    <td><${Badge} word=${row.state} /></td>
    <td class="wide-only">${row.health ? html`<${Badge} word=${row.health} title=${row.reasons?.join("; ")} />` : "–"}</td>
    <td class="number wide-only">${count(row.calls)}</td>
    <td class="number mid-only">${duration(row.p95)}</td>
    <td class="mid-only"><${Sparkline} values=${history.map((sample) => sample.recent)} label=${`Latency of ${row.name} in the last minute: 95 % within ${duration(history.findLast((sample) => sample.recent !== null)?.recent)}`} /></td>
    <td class="number widest-only">${percent(row.cpu)}</td>
    <td class=${`number wide-only ${row.blocked_seconds > 0 ? "warn-text" : ""}`}>${row.blocked_seconds > 0 ? duration(row.blocked_seconds) : "–"}</td>
    <td class=${`number mid-only ${failures ? "bad-text" : ""}`}>${failures ? count(failures) : "–"}</td>
    <td><${Switch} on=${row.active} label=${`${row.name} is on`} disabled=${!operator} onClick=${() => propose(actions.toggle(row.name, !row.active))} /></td>
    <td class="actions"><button type="button" class="plain" disabled=${!operator} aria-label=${`Reload ${row.name}`} title="Reload" onClick=${() => propose(actions.reload(row.name))}><${Icon} name="reload" /></button></td>
  </tr>`
})
