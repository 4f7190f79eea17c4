// Short reports of what was done, with a way back where there is one.
import { html } from "../html.js"
import { selectors, store, useStore } from "../store.js"
import { Icon } from "./basics.js"

const STAYS = 12_000 // ms; a failure stays until it is closed
const MOST = 4
let last = 0

export function notify(notice) {
  const id = ++last
  store.set((s) => ({ notices: [...s.notices, { id, ...notice }].slice(-MOST) }))
  if (notice.kind !== "bad") setTimeout(() => dismiss(id), STAYS)
}

export function dismiss(id) {
  store.set((s) => ({ notices: s.notices.filter((notice) => notice.id !== id) }))
}

export function Notices() {
  const notices = useStore(selectors.notices)
  return html`<div class="notices" role="status" aria-live="polite">
    ${notices.map(
      ({ id, kind, text, detail, action }) => html`<div key=${id} class=${`notice ${kind}`}>
        <div><strong>${text}</strong>${detail && html`<p>${detail}</p>`}</div>
        ${action && html`<button type="button" onClick=${() => (dismiss(id), action.run())}>${action.label}</button>`}
        <button type="button" class="plain" aria-label="Close the message" onClick=${() => dismiss(id)}><${Icon} name="close" /></button>
      </div>`,
    )}
  </div>`
}
