// A form made from a JSON Schema. What a value may be is decided by the application alone: its
// faults come back with their paths and are shown at their fields.
import { useState } from "preact/hooks"
import { html } from "../html.js"
import { Icon } from "./basics.js"
import { initial, kindOf, MASK } from "./schema.js"

export const below = (path, key) => (typeof key === "number" ? `${path}[${key}]` : path ? `${path}.${key}` : key)

const idOf = (prefix, path) => `${prefix}-${path.replace(/[^\w-]/g, (one) => `_${one.codePointAt(0).toString(16)}_`)}`

export function Fields({ schema, root = schema, value, onChange, path = "", faults, prefix = "field", secrets = [] }) {
  const { schema: known } = kindOf(schema, root)
  const entries = Object.entries(known.properties ?? {})
  return entries.map(([name, one]) => html`<${Field} key=${name} name=${name} schema=${one} root=${root} path=${below(path, name)} value=${value?.[name]} faults=${faults} prefix=${prefix} secrets=${secrets}
    required=${known.required?.includes(name)} onChange=${(next) => onChange(changed(value, name, next))} />`)
}

// `undefined` takes a key away.
function changed(value, key, next) {
  const { [key]: _, ...rest } = value ?? {}
  return next === undefined ? rest : { ...value, [key]: next }
}

export function Field(props) {
  const { name, schema, root, path, value, onChange, faults, prefix, required, secrets } = props
  const { kind, schema: known, nullable } = kindOf(schema, root)
  const id = idOf(prefix, path)
  const mine = faults.filter((fault) => fault.path === path)
  const described = [known.description && `${id}-help`, mine.length && `${id}-error`].filter(Boolean).join(" ") || null
  const common = { id, "aria-describedby": described, "aria-invalid": mine.length ? "true" : null }
  const notes = html`${known.description && html`<p class="help" id=${`${id}-help`}>${known.description}</p>`}
    ${mine.length > 0 && html`<p class="field-error" id=${`${id}-error`}>${mine.map((fault) => fault.message).join("; ")}</p>`}`
  if (kind === "object" && !(nullable && value === null))
    return html`<fieldset id=${id} data-path=${path} tabindex="-1"><legend>${name}</legend>${notes}
      <${Fields} schema=${known} root=${root} value=${value} onChange=${onChange} path=${path} faults=${faults} prefix=${prefix} secrets=${secrets} />
      ${nullable && html`<p><button type="button" onClick=${() => onChange(null)}>Remove ${name}</button></p>`}</fieldset>`
  if (kind === "object") return html`<div class="field" id=${id} data-path=${path} tabindex="-1"><span class="label">${name}</span>${notes}<button type="button" onClick=${() => onChange(initial({ ...known, default: undefined }, root) ?? {})}>Add ${name}</button></div>`
  if (kind === "array") return html`<fieldset id=${id} data-path=${path} tabindex="-1"><legend>${name}</legend>${notes}<${Items} ...${props} known=${known} value=${value ?? []} /></fieldset>`
  if (kind === "map") return html`<fieldset id=${id} data-path=${path} tabindex="-1"><legend>${name}</legend>${notes}<${Pairs} ...${props} known=${known} value=${value ?? {}} /></fieldset>`
  if (kind === "boolean")
    return html`<div class="field" data-path=${path}><label class="check" for=${id}><input type="checkbox" ...${common} checked=${Boolean(value ?? known.default)} onChange=${(event) => onChange(event.target.checked)} /> ${name}</label>${notes}</div>`
  return html`<div class="field" data-path=${path}><label for=${id}>${name}${required && html` <span class="required">(required)</span>`}</label>
    <${Input} kind=${kind} known=${known} nullable=${nullable} common=${common} value=${value} onChange=${onChange} secret=${known.writeOnly || secrets.includes(name)} />${notes}</div>`
}

function Input({ kind, known, nullable, common, value, onChange, secret }) {
  if (kind === "choice") {
    const options = known.enum ?? [known.const]
    const at = options.findIndex((one) => one === (value ?? known.default))
    return html`<select ...${common} onChange=${(event) => onChange(event.target.value === "" ? (nullable ? null : undefined) : options[event.target.value])}>
      ${(nullable || at < 0) && html`<option value="" selected=${at < 0}>not set</option>`}
      ${options.map((one, index) => html`<option value=${index} selected=${index === at}>${String(one)}</option>`)}</select>`
  }
  if (kind === "json") return html`<${Json} common=${common} value=${value} onChange=${onChange} />`
  if (secret) {
    const unchanged = value === MASK
    return html`<input type="password" autocomplete="off" ...${common} value=${unchanged ? "" : (value ?? "")} placeholder=${unchanged ? "unchanged" : "not set"}
      onInput=${(event) => onChange(event.target.value === "" ? (unchanged ? MASK : nullable ? null : undefined) : event.target.value)} />`
  }
  const placeholder = nullable ? "not set" : known.default !== undefined && known.default !== "" ? String(known.default) : null
  if (kind === "number") return html`<${NumberInput} common=${common} known=${known} nullable=${nullable} value=${value} onChange=${onChange} placeholder=${placeholder} />`
  return html`<input type="text" ...${common} value=${value ?? ""} placeholder=${placeholder} onInput=${(event) => onChange(event.target.value === "" && nullable ? null : event.target.value)} />`
}

// What is no number is sent as it is: the application says what it expects.
function NumberInput({ common, known, nullable, value, onChange, placeholder }) {
  const [text, setText] = useState(String(value ?? ""))
  const read = (typed) => (typed.trim() === "" ? (nullable ? null : undefined) : Number.isFinite(Number(typed)) ? Number(typed) : typed)
  if (read(text) !== (value ?? (nullable ? null : undefined))) setText(String(value ?? ""))
  const input = (event) => {
    setText(event.target.value)
    onChange(read(event.target.value))
  }
  return html`<input type="text" ...${common} inputmode=${known.type === "integer" ? "numeric" : "decimal"} value=${text} placeholder=${placeholder} onInput=${input} />`
}

function Json({ common, value, onChange }) {
  const [text, setText] = useState(value === undefined ? "" : JSON.stringify(value, null, 2))
  const [wrong, setWrong] = useState(false)
  const input = (event) => {
    setText(event.target.value)
    try {
      onChange(event.target.value.trim() ? JSON.parse(event.target.value) : undefined)
      setWrong(false)
    } catch {
      onChange(event.target.value)
      setWrong(true)
    }
  }
  return html`<textarea ...${common} spellcheck="false" value=${text} onInput=${input}></textarea>${wrong && html`<p class="help">This is not JSON yet.</p>`}`
}

function Items({ name, root, path, value, onChange, faults, prefix, secrets, known }) {
  const replace = (index, next) => onChange(value.map((one, at) => (at === index ? next : one)))
  return html`${value.map((one, index) => html`<div class="item" key=${index}>
      <div><${Field} name=${`${name} ${index + 1}`} schema=${{ ...known.items, description: undefined }} root=${root} path=${below(path, index)} value=${one} faults=${faults} prefix=${prefix} secrets=${secrets} onChange=${(next) => replace(index, next === undefined ? "" : next)} /></div>
      <button type="button" class="plain" aria-label=${`Remove ${name} ${index + 1}`} onClick=${() => onChange(value.filter((_, at) => at !== index))}><${Icon} name="close" /></button></div>`)}
    <p><button type="button" onClick=${() => onChange([...value, initial(known.items, root)])}>Add to ${name}</button></p>`
}

function Pairs({ name, root, path, value, onChange, faults, prefix, secrets, known }) {
  const [fresh, setFresh] = useState("")
  const add = () => {
    if (!fresh || fresh in value) return
    onChange({ ...value, [fresh]: initial(known.additionalProperties, root) })
    setFresh("")
  }
  return html`${Object.entries(value).map(([key, one]) => html`<div class="item" key=${key}>
      <div><${Field} name=${key} schema=${known.additionalProperties} root=${root} path=${below(path, key)} value=${one} faults=${faults} prefix=${prefix} secrets=${secrets} onChange=${(next) => onChange({ ...value, [key]: next ?? "" })} /></div>
      <button type="button" class="plain" aria-label=${`Remove ${key} from ${name}`} onClick=${() => onChange(changed(value, key, undefined))}><${Icon} name="close" /></button></div>`)}
    <div class="item"><input type="text" aria-label=${`New key in ${name}`} value=${fresh} onInput=${(event) => setFresh(event.target.value)} /><button type="button" onClick=${add}>Add to ${name}</button></div>`
}
