// Draws the charts of a plugin.
export { default as Plot } from "uplot"
