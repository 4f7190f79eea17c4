// What was changed, by whom, and how to take it back; and backups.
import { useState } from "preact/hooks"
import { actions, propose } from "../actions.js"
import { request } from "../api.js"
import { ago, bytes, moment } from "../format.js"
import { html } from "../html.js"
import { Empty, Failure, Icon, Waiting } from "../parts/basics.js"
import { Dialog } from "../parts/dialog.js"
import { notify } from "../parts/notices.js"
import { Plan } from "../parts/plan.js"
import { useDocument } from "../parts/use.js"
import { selectors, useStore } from "../store.js"

export function Changes() {
  const operator = useStore(selectors.operator)
  const { value, problem, load } = useDocument("changes", ["changes"])
  const [shown, setShown] = useState(null)
  return html`<h1 tabindex="-1">Changes</h1>
    ${problem ? html`<${Failure} problem=${problem} again=${load} />` : !value ? html`<${Waiting} what="the changes" />` : value.length === 0
      ? html`<${Empty} title="Nothing was changed yet.">What is loaded, reloaded, switched or configured is listed here and can be undone.</${Empty}>`
      : html`<div class="table-frame"><table><caption class="unseen">Changes, the newest first</caption>
        <thead><tr><th scope="col">Change</th><th scope="col">When</th><th scope="col" class="mid-only">Who</th><th scope="col"><span class="unseen">Actions</span></th></tr></thead>
        <tbody>${newest(value).map((change) => html`<tr key=${change.id} class=${change.undone ? "off" : ""}><th scope="row"><button type="button" class="link" onClick=${() => setShown(change)}>${change.verb} ${change.target}</button></th>
          <td><time datetime=${change.at} title=${moment(change.at)}>${ago(change.at)}</time></td><td class="mid-only">${change.who}</td>
          <td class="actions">${change.undone ? html`<span class="muted">undone</span>` : change.undoable
            ? html`<button type="button" disabled=${!operator} aria-label=${`Undo ${change.verb} ${change.target}`} onClick=${() => propose(actions.undo(change))}><${Icon} name="undo" /> Undo</button>`
            : html`<span class="muted" title=${change.why_not}>final</span>`}</td></tr>`)}</tbody></table></div>`}
    <${Backups} operator=${operator} />
    ${shown && html`<${Dialog} title=${`${shown.verb} ${shown.target}`} onClose=${() => setShown(null)}><p class="muted">${moment(shown.at)}, ${shown.who}</p>
      <${Plan} plan=${shown.plan} /><div class="buttons"><button type="button" autofocus onClick=${() => setShown(null)}>Close</button></div></${Dialog}>`}`
}

const newest = (changes) => [...changes].sort((a, b) => new Date(b.at) - new Date(a.at))

function Backups({ operator }) {
  const { value, problem, load } = useDocument("backups", ["changes"])
  const [busy, setBusy] = useState(false)
  const make = async () => {
    setBusy(true)
    try {
      await request("POST", "backups", { body: {} })
      notify({ kind: "good", text: "A backup was made" })
      await load()
    } catch (error) {
      notify({ kind: "bad", text: error.message, detail: error.remedy })
    }
    setBusy(false)
  }
  return html`<section aria-labelledby="backups"><div class="title-row"><h2 id="backups">Backups</h2><button type="button" disabled=${!operator || busy} onClick=${make}>${busy ? "Backing up …" : "Back up now"}</button></div>
    ${problem ? html`<${Failure} problem=${problem} again=${load} />` : !value ? html`<${Waiting} what="the backups" />` : value.length === 0 ? html`<p class="muted">There are none.</p>`
      : html`<div class="table-frame"><table><caption class="unseen">Backups</caption><thead><tr><th scope="col">Backup</th><th scope="col">Made</th><th scope="col" class="number">Size</th><th scope="col"><span class="unseen">Actions</span></th></tr></thead>
        <tbody>${value.map((row) => html`<tr key=${row.name}><th scope="row"><code>${row.name}</code></th><td title=${moment(row.made_at)}>${ago(row.made_at)}</td><td class="number">${bytes(row.size)}</td>
          <td class="actions"><button type="button" disabled=${!operator} aria-label=${`Restore ${row.name}`} onClick=${() => propose(actions.restore(row.name))}>Restore</button></td></tr>`)}</tbody></table></div>`}</section>`
}
