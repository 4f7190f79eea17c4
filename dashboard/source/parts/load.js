import { useState } from "preact/hooks"
import { actions, propose } from "../actions.js"
import { html } from "../html.js"
import { Dialog } from "./dialog.js"

export function LoadDialog({ onClose }) {
  const [plugin, setPlugin] = useState("")
  const submit = (event) => {
    event.preventDefault()
    onClose()
    propose(actions.load(plugin.trim()))
  }
  return html`<${Dialog} title="Load a plugin" onClose=${onClose}>
    <form onSubmit=${submit}>
      <label for="load-plugin">Name, or path of a file or folder</label>
      <input id="load-plugin" required autofocus value=${plugin} onInput=${(event) => setPlugin(event.target.value)} aria-describedby="load-help" />
      <p id="load-help" class="muted">A path is relative to the application's directory.</p>
      <div class="buttons"><button type="button" onClick=${onClose}>Cancel</button><button type="submit" class="primary">Show the plan</button></div>
    </form></${Dialog}>`
}
