import { render } from "preact"
import { App } from "./app.js"
import { start } from "./data.js"
import { html } from "./html.js"
import "./style.css"

start()
render(html`<${App} />`, document.getElementById("app"))
