// The frame around every view: navigation, the state of the connection, messages, and dialogs.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import { logout } from "./api.js"
import { long } from "./format.js"
import { html } from "./html.js"
import { Badge, Icon } from "./parts/basics.js"
import { Notices } from "./parts/notices.js"
import { PlanDialog } from "./parts/plan.js"
import { selectors, store, useStore } from "./store.js"
import { Changes } from "./views/changes.js"
import { Events } from "./views/events.js"
import { Graph } from "./views/graph.js"
import { Login } from "./views/login.js"
import { Logs } from "./views/logs.js"
import { Plugin } from "./views/plugin.js"
import { Plugins } from "./views/plugins.js"
import { Startup } from "./views/startup.js"
import { Trace, Traces } from "./views/traces.js"

const VIEWS = [
  ["plugins", "Plugins", Plugins, Plugin],
  ["graph", "Graph", Graph],
  ["startup", "Start", Startup],
  ["traces", "Traces", Traces, Trace],
  ["logs", "Log", Logs],
  ["events", "Events", Events],
  ["changes", "Changes", Changes],
]

// `#/plugins/blog?core=1` is the view `plugins`, its detail `blog`.
function address() {
  const [path] = location.hash.replace(/^#\/?/, "").split("?")
  const [view, ...rest] = path.split("/")
  let detail = rest.join("/")
  try {
    detail = decodeURIComponent(detail)
  } catch {
    // A name with a percent sign, typed by hand.
  }
  return { view: VIEWS.some(([key]) => key === view) ? view : "plugins", detail }
}

function useAddress() {
  const [at, go] = useState(address)
  useEffect(() => {
    const changed = () => go(address())
    addEventListener("hashchange", changed)
    return () => removeEventListener("hashchange", changed)
  }, [])
  return at
}

export function App() {
  const session = useStore(selectors.session)
  useTheme()
  if (session === "out") return html`<${Login} />`
  return html`<${Frame} />`
}

function Frame() {
  const { view, detail } = useAddress()
  const main = useRef(null)
  const first = useRef(true)
  const [, title, List, Detail] = VIEWS.find(([key]) => key === view)
  const status = useStore(selectors.status)
  useEffect(() => {
    document.title = [detail || title, status?.name ?? "Veko"].join(" · ")
  }, [title, detail, status?.name])
  useEffect(() => {
    if (!first.current) {
      main.current.querySelector("h1")?.focus()
      scrollTo(0, 0)
    }
    first.current = false
  }, [view, detail])
  return html`<a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>Skip to the content</a>
    <${Header} status=${status} />
    <nav class="views" aria-label="Views"><ul>
      ${VIEWS.map(([key, label]) => html`<li key=${key}><a href=${`#/${key}`} aria-current=${key === view ? "page" : null}><${Icon} name=${key} /><span>${label}</span></a></li>`)}
    </ul></nav>
    <main id="main" ref=${main} tabindex="-1">
      <${Connection} />
      ${detail && Detail ? html`<${Detail} key=${detail} name=${detail} />` : html`<${List} />`}
    </main>
    <${Notices} />
    <${PlanDialog} />`
}

function Header({ status }) {
  return html`<header class="top">
    <a class="brand" href="#/plugins"><span class="mark" aria-hidden="true"></span><span>${status?.name ?? "Veko"}</span></a>
    ${status && html`<p class="facts">
      <${Badge} word=${status.state ?? "running"} />
      <span class="wide-only">Veko ${status.version}, Python ${status.python}</span>
      <span>up <${Uptime} seconds=${status.uptime} /></span>
      ${status.workers.length > 1 && html`<span>${status.workers.length} workers</span>`}
      ${status.role === "look" && html`<span class="badge quiet">read only</span>`}
    </p>`}
    <${Theme} />
    <button type="button" class="plain" onClick=${logout} aria-label="Log out"><${Icon} name="leave" /></button>
  </header>`
}

function Uptime({ seconds }) {
  const [began] = useState({ at: Date.now(), seconds })
  const [, tick] = useState(0)
  if (seconds !== began.seconds) Object.assign(began, { at: Date.now(), seconds })
  useEffect(() => {
    const timer = setInterval(() => document.hidden || tick((n) => n + 1), 1000)
    return () => clearInterval(timer)
  }, [])
  return html`<span class="number">${long(seconds + (Date.now() - began.at) / 1000)}</span>`
}

const THEMES = { auto: "light", light: "dark", dark: "auto" }

function Theme() {
  const theme = useStore(selectors.theme)
  const change = () => {
    const next = THEMES[theme]
    localStorage.setItem("veko-theme", next)
    store.set({ theme: next })
  }
  return html`<button type="button" class="plain" onClick=${change} aria-label=${`Colours: ${theme}. Change to ${THEMES[theme]}`}><${Icon} name=${theme} /></button>`
}

function useTheme() {
  const theme = useStore(selectors.theme)
  // Before the first paint: after it, the page would flash in the colours of the system.
  useLayoutEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = theme
  }, [theme])
}

const CONNECTIONS = {
  lost: "The connection to the application is lost. What you see may be out of date; this page tries to reconnect.",
  asleep: "This page was asleep.",
}

function Connection() {
  const connection = useStore(selectors.connection)
  const dropped = useStore(selectors.dropped)
  return html`<div role="status">
    ${CONNECTIONS[connection] && html`<p class="connection"><${Icon} name="warning" /> ${CONNECTIONS[connection]}</p>`}
    ${dropped > 0 && html`<p class="connection quiet">${dropped} events came faster than this page could take them and were left out.
      <button type="button" onClick=${() => store.set({ dropped: 0 })}>Close</button></p>`}
  </div>`
}
