// Shows new comments at once, and sends one's own without loading the page anew. Without it, the
// form works as any form.
const section = document.querySelector('[data-live]')
const list = section.querySelector('ol')
const state = section.querySelector('[data-state]')
const form = section.querySelector('[data-write]')
let socket, delay = 1000, waiting = false

function connect () {
  const url = new URL(section.dataset.live, location.href)
  url.protocol = url.protocol.replace('http', 'ws')
  socket = new WebSocket(url)
  socket.onopen = () => {
    delay = 1000
    state.textContent = 'New comments appear here by themselves.'
  }
  socket.onmessage = event => {
    const message = JSON.parse(event.data)
    if (message.html) show(message)
    if (message.accepted) answered('')
    if (message.problem) answered(message.problem)
  }
  socket.onclose = () => {
    if (waiting) answered('The connection was lost: look whether the comment is there, or send it again.')
    else state.textContent = 'Not connected; load the page again to see new comments.'
    setTimeout(connect, delay)
    delay = Math.min(2 * delay, 30000)
  }
}

function show ({ id, html }) {
  if (document.getElementById(id)) return
  section.querySelector('[data-none]')?.remove()
  const made = document.createElement('template')
  made.innerHTML = html // rendered and escaped by the server
  const item = made.content.firstElementChild
  item.classList.add('arrived')
  list.append(item)
}

function answered (problem) {
  waiting = false
  form.querySelector('button').disabled = false
  state.textContent = problem || 'Sent.'
  if (!problem) form.reset()
}

form?.addEventListener('submit', event => {
  if (socket.readyState !== WebSocket.OPEN) return // the browser sends the form
  event.preventDefault()
  waiting = true
  form.querySelector('button').disabled = true
  socket.send(form.elements.text.value)
})

connect()
