// Lays out the drawing of the dependency graph.
export { graphlib, layout } from "@dagrejs/dagre"
