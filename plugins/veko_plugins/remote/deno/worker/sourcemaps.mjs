/**
 * Lines of the original source for code that was compiled from TypeScript.
 *
 * The runtime maps the frames of modules that it links itself. What is loaded by `require` (all of
 * `module.exports` and `export =`) it compiles without mapping the frames; the map stands at the
 * end of the compiled text, which `modules.mjs` hands over. A map is read when the first error
 * shows a frame of its file.
 * @module
 */
import { Buffer } from 'node:buffer';

/** Compiled text by the path of its source. @type {Map<string, string>} */
const compiled = new Map();
/** @type {Map<string, number[][][]>} */
const maps = new Map();

const MARK = '//# sourceMappingURL=data:application/json;base64,';
const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** @param {string} path @param {string} text */
export function remember(path, text) {
  if (text.includes(MARK)) compiled.set(path, text.slice(text.lastIndexOf(MARK) + MARK.length));
}

/**
 * @param {string} path
 * @param {number} line from 1
 * @param {number} column from 1
 * @returns {[number, number]}
 */
export function original(path, line, column) {
  const lines = map(path);
  if (!lines) return [line, column];
  // A line made by the compiler alone has no segments: the nearest one above has.
  for (let at = Math.min(line, lines.length) - 1; at >= 0; at--) {
    const segments = lines[at];
    if (!segments.length) continue;
    let found = segments[0];
    if (at === line - 1) {
      for (const segment of segments) if (segment[0] <= column - 1) found = segment;
    } else found = segments[segments.length - 1];
    return [found[1] + 1, found[2] + 1];
  }
  return [line, column];
}

/**
 * @param {string} path
 * @returns {number[][][] | undefined} for each line: [column, original line, original column]
 */
function map(path) {
  const known = maps.get(path);
  const text = compiled.get(path);
  if (known || !text) return known;
  const lines = decode(JSON.parse(Buffer.from(text, 'base64').toString()).mappings);
  maps.set(path, lines);
  compiled.delete(path);
  return lines;
}

/**
 * Base-64 variable-length quantities, as in the source map specification (ECMA-426).
 * @param {string} mappings
 */
function decode(mappings) {
  let line = 0;
  let column = 0;
  return mappings.split(';').map((text) => {
    let at = 0;
    /** @type {number[][]} */ const segments = [];
    for (const part of text ? text.split(',') : []) {
      const [generated, source, lines, columns] = numbers(part);
      at += generated;
      if (source === undefined) continue;
      line += lines;
      column += columns;
      segments.push([at, line, column]);
    }
    return segments;
  });
}

/** @param {string} part */
function numbers(part) {
  const found = [];
  let value = 0;
  let shift = 0;
  for (const digit of part) {
    const bits = DIGITS.indexOf(digit);
    value += (bits & 31) * 2 ** shift;
    shift += 5;
    if (bits & 32) continue;
    found.push(value & 1 ? -Math.floor(value / 2) : value / 2);
    value = shift = 0;
  }
  return found;
}
