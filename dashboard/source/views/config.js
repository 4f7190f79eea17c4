// The configuration of a plugin: a form made from its schema, or JSON where there is none.
import { useEffect, useRef, useState } from "preact/hooks"
import { plan, propose } from "../actions.js"
import { segment } from "../api.js"
import { html } from "../html.js"
import { Failure, Icon } from "../parts/basics.js"
import { Fields } from "../parts/form.js"
import { kindOf, same } from "../parts/schema.js"

export function Config({ details, operator, reload }) {
  const { config_schema: schema, config } = details
  const formed = schema && kindOf(schema, schema).kind === "object"
  const [base, setBase] = useState({ config, etag: details.config_etag })
  const [draft, setDraft] = useState(config ?? {})
  const [faults, setFaults] = useState([])
  const [problem, setProblem] = useState(null)
  const [asJson, setAsJson] = useState(!formed)
  const [again, setAgain] = useState(false)
  const form = useRef(null)
  const dirty = !same(base.config ?? {}, draft)
  const take = (next = details) => {
    setBase({ config: next.config, etag: next.config_etag })
    setDraft(next.config ?? {})
    setFaults([])
    setProblem(null)
  }
  useEffect(() => {
    if (details.config_etag !== base.etag && !dirty) take()
  }, [details.config_etag])
  useEffect(() => {
    if (faults.length) form.current?.querySelector('[aria-invalid="true"]')?.focus()
  }, [faults])
  const name = details.plugin.name
  if (config === null && !schema) return html`<p class="muted">It has no configuration.</p>`
  const refused = (error) => {
    setProblem(error)
    setFaults(error.faults)
  }
  const submit = async (event) => {
    event.preventDefault()
    setProblem(null)
    setFaults([])
    const action = {
      verb: "configure",
      target: name,
      method: "PUT", // what equals the value that was shown, a masked secret too, is left as it is
      path: `plugins/${segment(name)}/config${again ? "?reload=1" : ""}`,
      body: draft,
      headers: { "if-match": base.etag },
      onRefused: refused,
      onDone: async () => {
        const fresh = await reload()
        if (fresh) take(fresh)
      },
    }
    try {
      propose({ ...action, plan: await plan(action) })
    } catch (error) {
      refused(error)
    }
  }
  const moved = problem?.status === 412 || (dirty && details.config_etag !== base.etag)
  const elsewhere = faults.filter((fault) => asJson || !form.current?.querySelector(`[data-path="${CSS.escape(fault.path)}"]`))
  return html`<form ref=${form} novalidate onSubmit=${submit} aria-label=${`Configuration of ${name}`}>
    ${moved
      ? html`<div class="failure" role="alert"><p><${Icon} name="warning" /> <strong>Somebody else has changed this configuration meanwhile.</strong></p>
          <p><button type="button" onClick=${async () => take((await reload()) ?? details)}>Take the current one</button></p></div>`
      : problem && html`<${Failure} problem=${problem} />`}
    ${elsewhere.length > 0 && html`<ul class="faults">${elsewhere.map((fault) => html`<li class="field-error">${fault.path && html`<code>${fault.path}</code>: `}${fault.message}</li>`)}</ul>`}
    <fieldset class="bare" disabled=${!operator}><legend class="unseen">Values</legend>
      ${asJson ? html`<${Whole} value=${draft} onChange=${setDraft} invalid=${faults.length > 0} />` : html`<${Fields} schema=${schema} value=${draft} onChange=${setDraft} faults=${faults} prefix="config" secrets=${details.secrets} />`}
    </fieldset>
    <p><label class="check"><input type="checkbox" checked=${again} disabled=${!operator} onChange=${(event) => setAgain(event.target.checked)} /> Reload the plugin then, for one that reads its configuration when it loads</label></p>
    <div class="buttons start">
      <button type="submit" class="primary" disabled=${!operator || !dirty}>Show the plan</button>
      <button type="button" disabled=${!dirty} onClick=${() => take()}>Discard</button>
      ${formed && html`<button type="button" aria-pressed=${asJson ? "true" : "false"} onClick=${() => setAsJson(!asJson)}>As JSON</button>`}
    </div></form>`
}

function Whole({ value, onChange, invalid }) {
  const [text, setText] = useState(JSON.stringify(value, null, 2))
  const [wrong, setWrong] = useState("")
  useEffect(() => {
    try {
      if (!same(JSON.parse(text), value)) setText(JSON.stringify(value, null, 2))
    } catch {
      // It is being typed.
    }
  }, [value])
  const input = (event) => {
    setText(event.target.value)
    try {
      const read = JSON.parse(event.target.value)
      setWrong(typeof read === "object" && read && !Array.isArray(read) ? "" : "A configuration is an object: { … }")
      if (typeof read === "object" && read && !Array.isArray(read)) onChange(read)
    } catch (error) {
      setWrong(error.message)
    }
  }
  return html`<div class="field wide"><label for="config-json">Configuration as JSON</label>
    <textarea id="config-json" spellcheck="false" rows="12" aria-invalid=${wrong || invalid ? "true" : null} aria-describedby=${wrong ? "config-json-error" : null} value=${text} onInput=${input}></textarea>
    ${wrong && html`<p class="field-error" id="config-json-error">${wrong}</p>`}</div>`
}
