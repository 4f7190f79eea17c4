// Preact with HTML written in template strings, so the sources need no compiler of their own.
import { h } from "preact"
import htm from "htm"

export const html = htm.bind(h)
