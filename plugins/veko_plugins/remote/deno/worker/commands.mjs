/**
 * The parameters of a command, read from its function: they become the command's arguments.
 * @module
 */

/**
 * @typedef {{name: string, type: string, required: boolean, default: any, help: string, kind: string, many: boolean}} Parameter
 */

/** @param {Function} fn @returns {Parameter[]} */
export function parameters(fn) {
  return names(fn).map(([name, initial]) => {
    const value = literal(initial);
    const type = typeof value === 'number' ? 'float' : typeof value === 'boolean' ? 'bool' : 'str';
    return {
      name,
      type,
      required: initial === undefined,
      default: value ?? null,
      help: '',
      kind: initial === undefined ? 'argument' : 'option',
      many: initial === REST,
    };
  });
}

/**
 * @param {Function} fn
 * @returns {(args: any[], named: Record<string, any>) => any} what
 *   the host calls: options by name, the rest in order
 */
export function asCommand(fn) {
  const all = names(fn);
  return (args, named) => {
    const values = [...args];
    all.forEach(([name, initial], at) => {
      if (!(name in named)) return;
      if (initial === REST) values.splice(at, 1, ...named[name]);
      else values[at] = named[name] ?? undefined;
    });
    return fn(...values);
  };
}

const REST = '...';

/**
 * @param {Function} fn
 * @returns {[string, string | undefined][]} names and initial values as written
 */
function names(fn) {
  const text = Function.prototype.toString.call(fn).replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
  const single = /^(?:async\s+)?([\w$]+)\s*=>/.exec(text);
  if (single) return [[single[1].replaceAll('$', '_'), undefined]];
  const open = text.indexOf('(');
  if (open < 0) return [];
  return split(inside(text, open)).map((part, at) => {
    const found = /^(\.\.\.)?\s*([\w$]+)\s*(?:=\s*([\s\S]+))?$/.exec(part.trim());
    // A pattern such as `{ force }` has no name of its own.
    if (!found) return /** @type {[string, undefined]} */ ([`arg${at + 1}`, undefined]);
    const name = found[2].replaceAll('$', '_');
    return /** @type {[string, string | undefined]} */ ([name, found[1] ? REST : found[3]]);
  });
}

/** @param {string} text @param {number} open */
function inside(text, open) {
  let depth = 0;
  for (let at = open; at < text.length; at++) {
    if ('([{'.includes(text[at])) depth++;
    else if (')]}'.includes(text[at]) && --depth === 0) return text.slice(open + 1, at);
  }
  return '';
}

/**
 * @param {string} text
 * @returns {string[]} what stands between the commas of the outermost level
 */
function split(text) {
  const parts = [];
  let depth = 0;
  let from = 0;
  for (let at = 0; at <= text.length; at++) {
    if (at === text.length || (text[at] === ',' && depth === 0)) {
      if (text.slice(from, at).trim()) parts.push(text.slice(from, at));
      from = at + 1;
    } else if ('([{'.includes(text[at])) depth++;
    else if (')]}'.includes(text[at])) depth--;
  }
  return parts;
}

/** @param {string | undefined} text a literal's source; anything else counts as unknown */
function literal(text) {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text.trim().replace(/^'([^'"\\]*)'$/, '"$1"'));
  } catch {
    return undefined;
  }
}
