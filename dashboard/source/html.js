// Preact with HTML written in template strings, so the sources need no compiler of their own.
import { Component, h } from "preact"
import htm from "htm"

export const html = htm.bind(h)

// A component that is drawn again only if one of its properties is another one.
export const memo = (draw) =>
  class extends Component {
    shouldComponentUpdate(next) {
      return Object.keys(next).some((key) => next[key] !== this.props[key])
    }
    render(props) {
      return draw(props)
    }
  }
