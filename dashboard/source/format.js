// Numbers and times as people read them.

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–"
  if (seconds === 0) return "0 s"
  if (seconds < 1e-3) return `${digits(seconds * 1e6)} µs`
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`
  if (seconds < 120) return `${digits(seconds)} s`
  return long(seconds)
}

export function long(seconds) {
  const parts = []
  let rest = Math.floor(seconds)
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    if (rest >= size && parts.length < 2) {
      parts.push(`${Math.floor(rest / size)} ${unit}`)
      rest %= size
    } else if (parts.length) break
  }
  return parts.join(" ") || "0 s"
}

function digits(number) {
  return number >= 100 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2)
}

const grouped = new Intl.NumberFormat("en", { useGrouping: true })
export const count = (number) => (number === null || number === undefined ? "–" : grouped.format(number).replaceAll(",", " "))
export const plural = (number, word, many = `${word}s`) => `${count(number)} ${number === 1 ? word : many}`
export const percent = (share) => (share === null || share === undefined ? "–" : `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`)

export function bytes(number) {
  if (number === null || number === undefined) return "–"
  for (const unit of ["B", "KiB", "MiB"]) {
    if (number < 1024) return `${digits(number)} ${unit}`
    number /= 1024
  }
  return `${digits(number)} GiB`
}

// The API writes times in ISO 8601 or as seconds since 1970.
export function date(value) {
  if (value === null || value === undefined) return null
  return new Date(typeof value === "number" ? value * 1000 : value)
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" })
const dayFormat = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" })
export const clock = (value) => (date(value) ? clockFormat.format(date(value)) : "–")
export const moment = (value) => (date(value) ? dayFormat.format(date(value)) : "–")

export function ago(value) {
  const time = date(value)
  if (!time) return "–"
  const seconds = (Date.now() - time.getTime()) / 1000
  return seconds < 5 ? "just now" : `${long(seconds)} ago`
}
