// Which plugin needs which: laid out by dagre, drawn as SVG.
import { useMemo, useState } from "preact/hooks"
import { segment } from "../api.js"
import { plural } from "../format.js"
import { html } from "../html.js"
import { Empty, Failure, PluginLink, tone, Waiting } from "../parts/basics.js"
import { useDocument, useLibrary } from "../parts/use.js"

const MOST = 400 // nodes that are laid out without a question: more take the browser seconds
const HEIGHT = 34
const LONGEST = 28 // characters of a name

const shortened = (name) => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name)

let pen = null // a canvas takes milliseconds to make
function widthOf(name) {
  pen ??= document.createElement("canvas").getContext("2d")
  pen.font = `13.5px ${getComputedStyle(document.body).fontFamily}`
  return pen.measureText(shortened(name)).width + 38
}

export function Graph() {
  const [core, setCore] = useState(false)
  const [anyway, setAnyway] = useState(false)
  const [chosen, setChosen] = useState(null)
  const { value, problem, load } = useDocument(core ? "graph?core=1" : "graph", ["plugins"])
  const parts = useMemo(() => value && split(value, core), [value, core])
  const large = parts && parts.nodes.length > MOST && !anyway
  const drawn = parts && !large && parts.nodes.length > 0
  const { library, problem: undrawn } = useLibrary(() => import("../libraries/layout.js"))
  const placed = useMemo(() => drawn && library && arrange(library, parts), [library, parts, large])
  const title = html`<h1 tabindex="-1">Dependency graph</h1>`
  if (problem && !value) return html`${title}<${Failure} problem=${problem} again=${load} />`
  if (!value) return html`${title}<${Waiting} what="the graph" />`
  return html`${title}
    <div class="filters"><label class="check"><input type="checkbox" checked=${core} onChange=${(event) => setCore(event.target.checked)} /> Show the parts of Veko</label>
      <span class="muted">${plural(parts.edges.length, "dependency", "dependencies")} of ${plural(parts.nodes.length, "plugin")}</span></div>
    ${large && html`<p><button type="button" onClick=${() => setAnyway(true)}>Draw ${plural(parts.nodes.length, "plugin")} anyway</button></p>`}
    ${drawn && !placed && (undrawn ? html`<${Failure} problem=${undrawn} />` : html`<${Waiting} what="the drawing" />`)}
    ${placed && html`<${Drawing} placed=${placed} chosen=${chosen} onChoose=${setChosen} />`}
    ${parts.nodes.length === 0 && html`<${Empty} title="No plugin needs another." />`}
    ${parts.alone.length > 0 && html`<section aria-labelledby="alone"><h2 id="alone">Without dependencies</h2>
      <ul class="chips">${parts.alone.map((node) => html`<li key=${node.name}><${PluginLink} name=${node.name} /></li>`)}</ul></section>`}
    ${parts.edges.length > 0 && html`<details><summary>The same as a list</summary><ul>${parts.edges.map((edge) => html`<li><${PluginLink} name=${edge.plugin} /> needs <${PluginLink} name=${edge.needs} />${edge.services.length > 0 && html` for ${edge.services.join(", ")}`}</li>`)}</ul></details>`}`
}

function split({ nodes, edges }, core) {
  const shown = new Set(nodes.filter((node) => core || !node.core).map((node) => node.name))
  const kept = edges.filter((edge) => shown.has(edge.plugin) && shown.has(edge.needs))
  const linked = new Set(kept.flatMap((edge) => [edge.plugin, edge.needs]))
  const visible = nodes.filter((node) => shown.has(node.name))
  return { nodes: visible.filter((node) => linked.has(node.name)), alone: visible.filter((node) => !linked.has(node.name)), edges: kept }
}

function arrange({ graphlib, layout }, { nodes, edges }) {
  const graph = new graphlib.Graph()
  graph.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 56, marginx: 8, marginy: 8 })
  graph.setDefaultEdgeLabel(() => ({}))
  for (const node of nodes) graph.setNode(node.name, { node, width: widthOf(node.name), height: HEIGHT })
  for (const edge of edges) graph.setEdge(edge.plugin, edge.needs, { edge })
  layout(graph)
  const { width, height } = graph.graph()
  return { width, height, nodes: graph.nodes().map((name) => graph.node(name)), edges: graph.edges().map((one) => ({ ...one, ...graph.edge(one) })) }
}

function Drawing({ placed, chosen, onChoose }) {
  const near = new Set(placed.edges.filter(({ v, w }) => v === chosen || w === chosen).flatMap(({ v, w }) => [v, w]))
  const dim = (name) => chosen && name !== chosen && !near.has(name)
  return html`<div class="graph-frame" tabindex="0" role="region" aria-label="Drawing of the dependency graph">
    <svg class="graph" viewBox=${`0 0 ${placed.width} ${placed.height}`} width=${placed.width} height=${placed.height} role="group" aria-label="Plugins; an arrow leads to the plugin that is needed">
      <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" class="arrow" /></marker></defs>
      ${placed.edges.map(({ v, w, points, edge }) => html`<path key=${`${v} ${w}`} class=${`edge ${edge.declared ? "" : "used"} ${chosen && v !== chosen && w !== chosen ? "dim" : ""}`} d=${curve(points)} marker-end="url(#arrow)" />`)}
      ${placed.nodes.map(({ node, x, y, width, height }) => html`<a key=${node.name} href=${`#/plugins/${segment(node.name)}`} aria-label=${`${node.name}, ${node.state}`}
        class=${`node ${tone(node.state === "active" ? (node.health ?? "active") : node.state)} ${dim(node.name) ? "dim" : ""}`}
        onMouseEnter=${() => onChoose(node.name)} onMouseLeave=${() => onChoose(null)} onFocus=${() => onChoose(node.name)} onBlur=${() => onChoose(null)}>
        <rect x=${x - width / 2} y=${y - height / 2} width=${width} height=${height} rx="8" />
        <circle cx=${x - width / 2 + 14} cy=${y} r="4" />
        <text x=${x - width / 2 + 25} y=${y + 4}>${shortened(node.name)}</text></a>`)}
    </svg></div>`
}

// A smooth line through the points: each bend is rounded towards the middle of the next stretch.
function curve(points) {
  const [first, ...rest] = points
  let path = `M${first.x} ${first.y}`
  rest.forEach((point, index) => {
    const next = rest[index + 1]
    path += next ? ` Q${point.x} ${point.y} ${(point.x + next.x) / 2} ${(point.y + next.y) / 2}` : ` L${point.x} ${point.y}`
  })
  return path
}
