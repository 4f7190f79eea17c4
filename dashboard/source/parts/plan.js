// The plan of a change: what would come and go, before it is done.
import { useEffect, useState } from "preact/hooks"
import { apply, plan as fetchPlan, propose, VERBS } from "../actions.js"
import { plural } from "../format.js"
import { html } from "../html.js"
import { store, useStore } from "../store.js"
import { Failure, Icon, Waiting } from "./basics.js"
import { Dialog } from "./dialog.js"

const selectProposed = (s) => s.proposed

export function PlanDialog() {
  const action = useStore(selectProposed)
  return action ? html`<${Proposed} key=${`${action.method} ${action.path} ${JSON.stringify(action.body)}`} action=${action} />` : null
}

function Proposed({ action }) {
  const [plan, setPlan] = useState(action.plan ?? null)
  const [problem, setProblem] = useState(null)
  const [busy, setBusy] = useState(false)
  const words = VERBS[action.verb]
  const close = () => store.set({ proposed: null })
  useEffect(() => {
    if (plan) return undefined
    let here = true
    fetchPlan(action).then((found) => here && setPlan(found), (error) => here && setProblem(error))
    return () => (here = false)
  }, [])
  const run = async () => {
    setBusy(true)
    try {
      await apply(action)
      close()
    } catch (error) {
      if (action.onRefused) {
        close()
        action.onRefused(error)
      }
      setProblem(error)
      setBusy(false)
    }
  }
  const cascade = problem?.status === 409 && action.body?.cascade === false && action.body.active !== true
  return html`<${Dialog} title=${`${words.does} ${action.target}?`} onClose=${() => busy || close()}>
    ${!plan && !problem && html`<${Waiting} what="the plan" />`}
    ${problem && html`<${Failure} problem=${problem} />`}
    ${problem?.faults?.length > 0 && html`<ul>${problem.faults.map((fault) => html`<li><code>${fault.path}</code>: ${fault.message}</li>`)}</ul>`}
    ${plan && html`<${Plan} plan=${plan} />`}
    <div class="buttons">
      <button type="button" onClick=${close} disabled=${busy}>Cancel</button>
      ${cascade && html`<button type="button" class="primary" onClick=${() => propose({ ...action, body: { ...action.body, cascade: true } })}>
        With the plugins that need it</button>`}
      ${plan && html`<button type="button" class=${`primary ${action.verb === "unload" || action.verb === "deactivate" ? "danger" : ""}`}
        disabled=${busy} autofocus onClick=${run}>${busy ? `${words.busy} …` : words.does}</button>`}
    </div>
  </${Dialog}>`
}

const GROUPS = [["routes", "Routes"], ["hooks", "Hooks"], ["services", "Services"], ["commands", "Commands"]]
const STEPS = { load: "loaded", unload: "unloaded", reload: "reloaded", activate: "switched on", deactivate: "switched off", configure: "configured" }
const FEW = 12 // lines that are shown without a click

export function Plan({ plan }) {
  const grows = Object.entries(plan.permissions)
  return html`<div class="plan">
    ${plan.warnings.map((warning) => html`<p class="warning-line"><${Icon} name="warning" /> ${warning}</p>`)}
    ${plan.plugins.length > 0
      ? html`<ul class="touched" aria-label="Plugins">${plan.plugins.map(
          (one) => html`<li key=${one.name + one.step}><strong>${one.name}</strong> ${one.version} is ${STEPS[one.step]}</li>`,
        )}</ul>`
      : html`<p>No plugin is touched.</p>`}
    ${plan.changes.length > 0 && html`<p>Changes: ${plan.changes.map((path, index) => html`${index > 0 && ", "}<code>${path}</code>`)}</p>`}
    ${grows.length > 0 && html`<section class="grows"><h3>Permissions that grow</h3>
      <ul>${grows.map(([name, asked]) => html`<li>${name}: ${asked.map((one) => html`<code>${one}</code> `)}</li>`)}</ul></section>`}
    ${GROUPS.map(([key, title]) => {
      const { come, go } = plan[key]
      if (!come.length && !go.length) return null
      return html`<details open=${come.length + go.length <= FEW}><summary>${title}: ${counted(come, go)}</summary>
        <ul class="diff">${go.map((one) => html`<li class="goes"><span aria-hidden="true">−</span><span class="unseen">goes: </span><code>${one}</code></li>`)}
        ${come.map((one) => html`<li class="comes"><span aria-hidden="true">+</span><span class="unseen">comes: </span><code>${one}</code></li>`)}</ul></details>`
    })}
    ${plan.unknown.length > 0 && html`<p class="muted">Which ${plan.unknown.join(", ")} come is known once the new code has run.</p>`}
    <p class="muted">${plan.undoable ? "This can be undone." : `This cannot be undone${plan.why_not ? `: ${plan.why_not}` : "."}`}</p>
  </div>`
}

const counted = (come, go) => [come.length && plural(come.length, "comes", "come"), go.length && plural(go.length, "goes", "go")].filter(Boolean).join(", ")
