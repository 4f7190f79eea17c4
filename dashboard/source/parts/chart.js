// A chart of the last minutes. What it shows is also said in words, for those who do not see it.
import { useEffect, useRef } from "preact/hooks"
import "uplot/dist/uPlot.min.css"
import { html } from "../html.js"
import { selectors, useStore } from "../store.js"
import { useLibrary } from "./use.js"

const HEIGHT = 170
const COLORS = ["--accent", "#1b9c80", "#c27a12"]

// `data` is [times in seconds, values, values, …]; `names` are those of the lines.
export function Chart({ title, names, data, format, words }) {
  const element = useRef(null)
  const chart = useRef(null)
  const theme = useStore(selectors.theme)
  const { library, problem } = useLibrary(() => import("../libraries/plot.js"))
  useEffect(() => {
    if (!library) return undefined
    const box = element.current
    const style = getComputedStyle(document.documentElement)
    const color = (name) => (name.startsWith("--") ? style.getPropertyValue(name).trim() : name)
    const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" }
    chart.current = new library.Plot(
      {
        width: box.clientWidth || 320,
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
        axes: [{ ...axis, space: 70, values: (_, ticks) => ticks.map((at) => new Date(at * 1000).toTimeString().slice(0, 8)) }, { ...axis, size: 66, values: (_, ticks) => ticks.map(format) }],
        series: [{}, ...names.map((name, index) => ({ label: name, stroke: color(COLORS[index]), width: 1.75, points: { show: true, size: 4, fill: color(COLORS[index]) }, spanGaps: false }))],
      },
      data,
      box,
    )
    const observer = new ResizeObserver(() => chart.current.setSize({ width: box.clientWidth, height: HEIGHT }))
    observer.observe(box)
    return () => {
      observer.disconnect()
      chart.current.destroy()
      chart.current = null
    }
  }, [theme, library])
  useEffect(() => chart.current?.setData(data), [data])
  return html`<div class="chart"><p class="chart-title" aria-hidden="true">${title}</p><div class="plot" ref=${element} role="img" aria-label=${`${title}: ${words}`}></div>
    ${problem && html`<p class="muted">${problem.message} ${problem.remedy}</p>`}
    <ul class="legend">${names.map((name) => html`<li key=${name}>${name}</li>`)}</ul></div>`
}
