// A modal dialog: the browser keeps the focus in it, closes it on Escape and returns the focus.
import { useEffect, useRef } from "preact/hooks"
import { html } from "../html.js"

export function Dialog({ title, onClose, children, wide }) {
  const element = useRef(null)
  useEffect(() => {
    const dialog = element.current
    const before = document.activeElement
    dialog.showModal()
    return () => {
      dialog.close()
      if (before?.isConnected) before.focus()
    }
  }, [])
  return html`<dialog ref=${element} class=${wide ? "wide" : ""} aria-labelledby="dialog-title"
    onCancel=${(event) => (event.preventDefault(), onClose())}
    onClick=${(event) => event.target === element.current && onClose()}>
    <div class="dialog-inner"><h2 id="dialog-title">${title}</h2>${children}</div>
  </dialog>`
}
