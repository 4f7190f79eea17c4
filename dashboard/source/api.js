// Requests to the management API. Addresses are relative, so the dashboard works below a mount.
import { store } from "./store.js"

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `The server answered ${status}`)
    this.status = status
    this.remedy = body.remedy ?? ""
    this.faults = body.faults ?? []
    this.title = body.title ?? ""
  }
}

const LIMIT = 30_000 // ms; a plugin's load may take a while

export async function request(method, path, { body, headers = {}, plan = false } = {}) {
  const url = `api/${path}${plan ? `${path.includes("?") ? "&" : "?"}plan=1` : ""}`
  const init = { method, headers: { accept: "application/json", ...headers }, credentials: "same-origin" }
  if (body !== undefined) {
    init.body = JSON.stringify(body)
    init.headers["content-type"] ??= "application/json"
  }
  let response
  try {
    response = await fetch(url, { ...init, signal: AbortSignal.timeout(LIMIT) })
  } catch (error) {
    const late = error.name === "TimeoutError"
    throw new Problem(0, {
      detail: late ? `The application did not answer within ${LIMIT / 1000} s.` : "The application cannot be reached.",
      remedy: late ? "Look at the log for what it is busy with." : "This page tries again by itself.",
    })
  }
  const text = await response.text()
  const value = parsed(text, response.headers.get("content-type") ?? "")
  if (response.status === 401) store.set({ session: "out" })
  if (!response.ok) throw new Problem(response.status, value ?? {})
  return { value, etag: response.headers.get("etag") }
}

function parsed(text, type) {
  if (!text || !type.includes("json")) return null
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

export const get = async (path) => (await request("GET", path)).value

// A plugin's name may have any character.
export const segment = (name) => encodeURIComponent(name)

export async function login(token) {
  const response = await fetch("login", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    credentials: "same-origin",
    body: JSON.stringify({ token }),
  }).catch(() => null)
  if (!response) throw new Problem(0, { detail: "The application cannot be reached." })
  if (!response.ok) throw new Problem(response.status, parsed(await response.text(), "json") ?? {})
}

export async function logout() {
  await fetch("logout", { method: "POST", credentials: "same-origin" }).catch(() => null)
  store.set({ session: "out", status: null, plugins: null })
}
