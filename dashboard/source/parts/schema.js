// What a JSON Schema says about one value, in the few kinds that a form has fields for.

export const MASK = "********"

export function resolve(schema, root) {
  let known = schema ?? {}
  for (let depth = 0; known.$ref && depth < 32; depth++) {
    const { $ref, ...beside } = known
    const target = $ref.split("/").slice(1).reduce((node, key) => node?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], root)
    known = { ...target, ...beside }
  }
  if (known.allOf?.length === 1) known = { ...resolve(known.allOf[0], root), ...known, allOf: undefined }
  return known
}

// {kind, schema, nullable}; kind: object map array text number boolean choice json
export function kindOf(schema, root) {
  let known = resolve(schema, root)
  let nullable = false
  const options = known.anyOf ?? known.oneOf
  if (options) {
    const others = options.map((one) => resolve(one, root)).filter((one) => one.type !== "null")
    nullable = others.length < options.length
    if (others.length !== 1) return { kind: "json", schema: known, nullable }
    const { anyOf, oneOf, ...beside } = known
    known = { ...others[0], ...beside }
  }
  let { type } = known
  if (Array.isArray(type)) {
    nullable ||= type.includes("null")
    const others = type.filter((one) => one !== "null")
    type = others.length === 1 ? others[0] : "several"
  }
  const kind = known.enum || known.const !== undefined ? "choice" : (KINDS[type] ?? "json")
  if (kind === "object" && !known.properties) return { kind: known.additionalProperties && typeof known.additionalProperties === "object" ? "map" : "json", schema: known, nullable }
  if (kind === "array" && (known.prefixItems || !known.items)) return { kind: "json", schema: known, nullable }
  return { kind, schema: known, nullable }
}

const KINDS = { object: "object", array: "array", string: "text", integer: "number", number: "number", boolean: "boolean" }

// A first value for a new item of a list.
export function initial(schema, root) {
  const { kind, schema: known, nullable } = kindOf(schema, root)
  if (known.default !== undefined) return structuredClone(known.default)
  if (nullable) return null
  if (kind === "choice") return known.const ?? known.enum[0]
  if (kind === "object") return Object.fromEntries(Object.entries(known.properties).filter(([name]) => known.required?.includes(name)).map(([name, one]) => [name, initial(one, root)]))
  return { map: {}, array: [], text: "", number: 0, boolean: false }[kind] ?? null
}

export const same = (one, other) => JSON.stringify(one) === JSON.stringify(other)
