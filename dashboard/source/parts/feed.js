// A list that grows at its end and stays there, until the reader scrolls up.
import { useLayoutEffect, useRef } from "preact/hooks"
import { html } from "../html.js"

const SHOWN = 500 // rows in the page; more slow the browser down and nobody reads them

export function Feed({ label, rows, row: Row, paused }) {
  const element = useRef(null)
  const atEnd = useRef(true)
  useLayoutEffect(() => {
    if (atEnd.current && !paused) element.current.scrollTop = element.current.scrollHeight
  }, [rows, paused])
  const scrolled = ({ target }) => (atEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < 40)
  const visible = rows.slice(-SHOWN)
  const first = rows.length - visible.length
  return html`<div class="feed" ref=${element} onScroll=${scrolled} tabindex="0" role="region" aria-label=${label}>
    <ol>${visible.map((one, index) => html`<${Row} key=${one.id ?? one.key ?? first + index} row=${one} />`)}</ol></div>`
}
