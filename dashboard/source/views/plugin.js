// Everything about one plugin.
import { useEffect, useMemo, useRef, useState } from "preact/hooks"
import { actions, propose } from "../actions.js"
import { request, segment } from "../api.js"
import { ago, count, duration, moment, percent, plural } from "../format.js"
import { html } from "../html.js"
import { Badge, Failure, Icon, PluginLink, Waiting } from "../parts/basics.js"
import { Chart } from "../parts/chart.js"
import { Fields } from "../parts/form.js"
import { useDocument } from "../parts/use.js"
import { selectors, store, useStore } from "../store.js"
import { Config } from "./config.js"

const versionOf = ({ error_count, state, loaded_at }) => `${error_count} ${state} ${loaded_at}`

export function Plugin({ name }) {
  const operator = useStore(selectors.operator)
  const { value, problem, load } = useDocument(`plugins/${segment(name)}`, ["plugins", "changes"])
  const live = useStore(selectors.plugins)?.find((row) => row.name === name)
  const [now, then] = [live && versionOf(live), value && versionOf(value.plugin)]
  const asked = useRef(null)
  useEffect(() => {
    // It failed, or was changed, since this was asked for; once for each such state.
    if (now && then && now !== then && asked.current !== now) {
      asked.current = now
      load()
    }
  }, [now, then])
  const back = html`<p><a href="#/plugins"><${Icon} name="back" /> All plugins</a></p>`
  if (!value) return html`${back}<h1 tabindex="-1">${name}</h1>${problem ? html`<${Failure} problem=${problem} again=${load} />` : html`<${Waiting} what="the plugin" />`}`
  const row = { ...value.plugin, ...live }
  return html`${back}
    <div class="title-row"><h1 tabindex="-1">${name} <span class="muted version">${row.version}</span></h1>
      <div class="buttons">
        ${row.loaded && html`<button type="button" disabled=${!operator} onClick=${() => propose(actions.toggle(name, !row.active))}>${row.active ? "Switch off" : "Switch on"}</button>`}
        ${row.loaded && html`<button type="button" disabled=${!operator} onClick=${() => propose(actions.reload(name))}><${Icon} name="reload" /> Reload</button>`}
        ${row.loaded
          ? html`<button type="button" disabled=${!operator} onClick=${() => propose(actions.unload(name))}><${Icon} name="unload" /> Unload</button>`
          : html`<button type="button" disabled=${!operator} onClick=${() => propose(actions.load(name))}><${Icon} name="load" /> Load</button>`}
      </div></div>
    ${row.description && html`<p>${row.description}</p>`}
    <p class="facts"><${Badge} word=${row.state} /> ${row.health && html`<${Badge} word=${row.health} />`} ${row.enabled === false && html`<span>off at the next start</span>`}
      ${row.loaded_at && html`<span title=${moment(row.loaded_at)}>loaded ${ago(row.loaded_at)}, in ${duration(row.load_duration)}</span>`}
      ${value.generation > 1 && html`<span>generation ${value.generation}</span>`} ${row.source && html`<code>${relative(row.source)}</code>`}</p>
    ${row.error && html`<div class="failure"><p><strong>It is not loaded:</strong> ${row.error}</p></div>`}
    ${row.reasons.map((reason) => html`<p class="warning-line"><${Icon} name="warning" /> ${reason}</p>`)}
    ${problem && html`<${Failure} problem=${problem} again=${load} />`}
    <${Measured} row=${row} />
    <${Errors} errors=${value.errors} />
    <section class="panel" aria-labelledby="configuration"><h2 id="configuration">Configuration</h2><${Config} details=${value} operator=${operator} reload=${load} /></section>
    <${Routes} routes=${value.routes} />
    <${Hooks} hooks=${value.hooks} />
    <${Commands} commands=${value.commands} operator=${operator} />
    <${Links} value=${value} />
    <section class="panel" aria-labelledby="permissions"><h2 id="permissions">Permissions</h2><${Permissions} permissions=${value.permissions} /></section>`
}

const relative = (path) => {
  const directory = `${store.get().status?.directory}/`
  return path.startsWith(directory) ? path.slice(directory.length) : path
}

function Measured({ row }) {
  const history = useStore(selectors.history).get(row.name)
  const latency = useMemo(() => columns(history ?? [], ["recent", "p95"]), [history])
  const rate = useMemo(() => columns(history ?? [], ["rate"]), [history])
  return html`<dl class="summary">
      <div><dt>Calls</dt><dd>${count(row.calls)}</dd></div><div><dt>Half within</dt><dd>${duration(row.p50)}</dd></div><div><dt>95 % within</dt><dd>${duration(row.p95)}</dd></div>
      <div><dt>Processor</dt><dd>${percent(row.cpu)}</dd></div><div class=${row.blocked_seconds ? "warn" : ""}><dt>Blocked the loop</dt><dd>${duration(row.blocked_seconds)}</dd></div>
      <div class=${row.error_count ? "bad" : ""}><dt>Errors</dt><dd>${count(row.error_count)}</dd></div></dl>
    ${history?.length > 1 && html`<div class="panel chart-row">
      <${Chart} title="Latency: 95 % of the calls within" names=${["now", "since it was loaded"]} data=${latency} format=${(value) => duration(value)} words=${`95 % of the calls end within ${duration(row.p95)}`} />
      <${Chart} title="Calls a second" names=${["calls"]} data=${rate} format=${(value) => count(Math.round(value * 10) / 10)} words=${`${count(Math.round((history.at(-1).rate ?? 0) * 10) / 10)} now`} /></div>`}`
}

const columns = (history, keys) => [history.map((sample) => sample.at / 1000), ...keys.map((key) => history.map((sample) => sample[key]))]

function Errors({ errors }) {
  if (!errors.length) return null
  return html`<section class="panel" aria-labelledby="errors"><h2 id="errors">${plural(errors.length, "last error", "last errors")}</h2>
    ${errors.map((error) => html`<div class="error-entry" key=${error.time + error.message}>
      <p><strong class="bad-text">${error.type}</strong>: ${error.message}</p>
      <p class="facts"><time datetime=${error.time} title=${moment(error.time)}>${ago(error.time)}</time>${error.event && html`<span>in <code>${error.event}</code></span>`}${error.handler && html`<code>${error.handler}</code>`}${error.file && html`<code>${relative(error.file)}:${error.line}</code>`}</p>
      ${error.traceback && html`<details><summary>Traceback</summary><pre tabindex="0" role="group" aria-label="Traceback">${error.traceback}</pre></details>`}</div>`)}</section>`
}

function Routes({ routes }) {
  if (!routes.length) return null
  return html`<section aria-labelledby="routes"><h2 id="routes">Routes</h2><div class="table-frame"><table><caption class="unseen">Routes</caption>
    <thead><tr><th scope="col">Route</th><th scope="col">State</th><th scope="col" class="number mid-only">Calls</th><th scope="col" class="number">95 % within</th><th scope="col" class="number mid-only">Errors</th></tr></thead>
    <tbody>${routes.map((route) => html`<tr key=${route.method + route.path}><th scope="row"><code>${route.method} ${route.path}</code></th>
      <td><${Badge} word=${route.state} tone=${route.state === "on" ? "good" : "bad"} title=${route.reason} />${route.reason && html` <span class="muted">${route.reason}</span>`}</td>
      <td class="number mid-only">${count(route.calls)}</td><td class="number">${duration(route.p95)}</td><td class="number mid-only">${route.errors ? count(route.errors) : "–"}</td></tr>`)}</tbody></table></div></section>`
}

function Hooks({ hooks }) {
  if (!hooks.length) return null
  return html`<section aria-labelledby="hooks"><h2 id="hooks">Hooks</h2><div class="table-frame"><table><caption class="unseen">Hooks</caption>
    <thead><tr><th scope="col">Event</th><th scope="col" class="mid-only">Handler</th><th scope="col" class="number">Priority</th><th scope="col" class="number mid-only">Calls</th><th scope="col" class="number">95 % within</th></tr></thead>
    <tbody>${hooks.map((hook) => html`<tr key=${`${hook.event} ${hook.handler} ${hook.priority}`}><th scope="row"><code>${hook.event}</code></th><td class="mid-only"><code>${hook.handler}</code></td>
      <td class="number">${hook.priority}</td><td class="number mid-only">${count(hook.calls)}</td><td class="number">${duration(hook.p95)}</td></tr>`)}</tbody></table></div></section>`
}

function Commands({ commands, operator }) {
  if (!commands.length) return null
  return html`<section class="panel" aria-labelledby="commands"><h2 id="commands">Commands</h2>${commands.map((command) => html`<${Command} key=${command.name} command=${command} operator=${operator} />`)}</section>`
}

function Command({ command, operator }) {
  const [given, setGiven] = useState({})
  const [state, setState] = useState({ busy: false, answer: null, problem: null })
  const run = async (event) => {
    event.preventDefault()
    setState({ busy: true, answer: null, problem: null })
    try {
      const { value } = await request("POST", `commands/${segment(command.name)}`, { body: { args: [], kwargs: given } })
      setState({ busy: false, answer: value, problem: null })
    } catch (problem) {
      setState({ busy: false, answer: null, problem })
    }
  }
  return html`<details><summary><code>${command.name}${command.signature}</code>${command.description && ` ${command.description}`}</summary>
    <form novalidate onSubmit=${run}><${Fields} schema=${command.parameters} value=${given} onChange=${setGiven} faults=${state.problem?.faults ?? []} prefix=${`command-${command.name}`} />
      <p><button type="submit" disabled=${!operator || state.busy} aria-label=${`Run ${command.name}`}><${Icon} name="run" /> ${state.busy ? "Running …" : "Run"}</button></p>
      <div role="status">${state.answer && html`<pre tabindex="0" role="group" aria-label="Result">${typeof state.answer.result === "string" ? state.answer.result : JSON.stringify(state.answer.result, null, 2)}</pre>`}</div>
      ${state.problem && html`<${Failure} problem=${state.problem} />`}</form></details>`
}

function Links({ value }) {
  const groups = [["Needs", value.needs], ["Needed by", value.needed_by]].filter(([, names]) => names.length)
  const others = [["Services", value.services], ["Middleware", value.middleware]].filter(([, names]) => names.length)
  const manifest = Object.entries(value.manifest).filter(([, one]) => one !== null && one !== "" && !(Array.isArray(one) && !one.length))
  return html`<section class="panel" aria-labelledby="facts"><h2 id="facts">Connections and manifest</h2><dl class="pairs">
    ${groups.map(([title, names]) => html`<dt>${title}</dt><dd>${names.map((name, index) => html`${index > 0 && ", "}<${PluginLink} name=${name} />`)}</dd>`)}
    ${others.map(([title, names]) => html`<dt>${title}</dt><dd>${names.map((name, index) => html`${index > 0 && ", "}<code>${name}</code>`)}</dd>`)}
    ${manifest.map(([key, one]) => html`<dt>${key}</dt><dd>${typeof one === "object" ? html`<code>${JSON.stringify(one)}</code>` : String(one)}</dd>`)}</dl></section>`
}

function Permissions({ permissions: { asked, granted, isolated } }) {
  const list = (names) => (names.length ? names.map((name) => html`<code>${name}</code> `) : "nothing")
  return html`<p>${isolated ? "It runs in a process of its own." : "It runs in the application's process."}</p><dl class="pairs"><dt>Asks for</dt><dd>${list(asked)}</dd><dt>Has</dt><dd>${granted.includes("*") ? "everything that the application may do" : list(granted)}</dd></dl>`
}
