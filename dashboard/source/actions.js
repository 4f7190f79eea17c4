// Every change goes one way: ask for its plan, show it, do it, offer to undo it.
import { request, segment } from "./api.js"
import { missed } from "./live.js"
import { notify } from "./parts/notices.js"
import { store } from "./store.js"

export const VERBS = {
  load: { does: "Load", done: "Loaded", busy: "Loading" },
  unload: { does: "Unload", done: "Unloaded", busy: "Unloading" },
  reload: { does: "Reload", done: "Reloaded", busy: "Reloading" },
  activate: { does: "Switch on", done: "Switched on", busy: "Switching on" },
  deactivate: { does: "Switch off", done: "Switched off", busy: "Switching off" },
  configure: { does: "Configure", done: "Configured", busy: "Configuring" },
  undo: { does: "Undo", done: "Undone", busy: "Undoing" },
  restore: { does: "Restore", done: "Restored", busy: "Restoring" },
}

// An action is {verb, target, method, path, body, headers}; null when no dialog is open.
export const actions = {
  load: (plugin, config) => ({ verb: "load", target: plugin, method: "POST", path: "plugins", body: config ? { plugin, config } : { plugin } }),
  unload: (name, cascade = false) => ({ verb: "unload", target: name, method: "POST", path: `plugins/${segment(name)}/unload`, body: { cascade } }),
  reload: (name) => ({ verb: "reload", target: name, method: "POST", path: `plugins/${segment(name)}/reload` }),
  toggle: (name, active, cascade = false) => ({
    verb: active ? "activate" : "deactivate",
    target: name,
    method: "POST",
    path: `plugins/${segment(name)}/toggle`,
    body: { active, cascade },
  }),
  undo: (change) => ({ verb: "undo", target: `${change.verb} ${change.target}`, method: "POST", path: `changes/${segment(String(change.id))}/undo` }),
  restore: (name) => ({ verb: "restore", target: name, method: "POST", path: `backups/${segment(name)}/restore` }),
}

export function propose(action) {
  store.set({ proposed: action })
}

export const plan = (action) => request(action.method, action.path, { body: action.body, headers: action.headers, plan: true }).then(({ value }) => value)

export async function apply(action) {
  const { value, etag } = await request(action.method, action.path, { body: action.body, headers: action.headers })
  const { done } = VERBS[action.verb]
  notify({
    kind: "good",
    text: `${done} ${action.target}`,
    action: value.undoable && action.verb !== "undo" ? { label: "Undo", run: () => propose(actions.undo(value)) } : null,
  })
  missed() // the stream says so as well, if it is there
  action.onDone?.(value, etag)
  return value
}
