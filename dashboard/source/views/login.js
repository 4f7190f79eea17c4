import { useEffect, useRef, useState } from "preact/hooks"
import { login } from "../api.js"
import { begin } from "../data.js"
import { html } from "../html.js"
import { Icon } from "../parts/basics.js"

// `veko serve` prints an address that ends in `#token=…`: a fragment is sent to no server.
function tokenOfAddress() {
  const found = /^#token=(.+)$/.exec(location.hash)
  if (found) history.replaceState(null, "", `${location.pathname}${location.search}#/plugins`)
  return found ? decodeURIComponent(found[1]) : ""
}

export function Login() {
  const [problem, setProblem] = useState(null)
  const [busy, setBusy] = useState(false)
  const field = useRef(null)
  const enter = async (token) => {
    setBusy(true)
    setProblem(null)
    try {
      await login(token)
      await begin()
    } catch (error) {
      setProblem(error)
      field.current?.focus()
    }
    setBusy(false)
  }
  useEffect(() => {
    document.title = "Log in · Veko"
    const follow = () => {
      const token = tokenOfAddress()
      if (token) enter(token)
      return token
    }
    if (!follow()) field.current.focus()
    addEventListener("hashchange", follow) // the address is opened where this page is open already
    return () => removeEventListener("hashchange", follow)
  }, [])
  return html`<main class="login">
    <form onSubmit=${(event) => (event.preventDefault(), enter(field.current.value.trim()))}>
      <p class="brand"><span class="mark" aria-hidden="true"></span><span>Veko</span></p>
      <h1>Log in</h1>
      <label for="token">Token</label>
      <input id="token" ref=${field} type="password" autocomplete="current-password" required
        aria-describedby="token-help ${problem ? "token-error" : ""}" aria-invalid=${problem ? "true" : null} />
      <p id="token-help" class="muted">It is in the file <code>.veko/admin-token</code> of the application's directory.</p>
      ${problem && html`<p id="token-error" class="field-error" role="alert"><${Icon} name="warning" /> ${problem.status === 401 || problem.status === 403 ? "This token is not the application's." : problem.message}</p>`}
      <button type="submit" class="primary" disabled=${busy}>${busy ? "Logging in …" : "Log in"}</button>
    </form>
  </main>`
}
