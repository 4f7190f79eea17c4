/**
 * Errors on the wire: `{type, message, stack, file, line, column, status?, code?}`.
 * @module
 */
import { fileURLToPath } from 'node:url';
import { original } from './sourcemaps.mjs';

const WORKER = new URL('.', import.meta.url).href;
// `at name (file:///a.ts:1:2)`, `at /a.ts:1:2`, and the last line of the runtime's syntax errors.
const FRAME = /(file:\/\/\/[^\s()]+?|(?<=[\s(])\/[^\s()]+?):(\d+):(\d+)/g;
// Frames of the runtime itself.
const INSIDE = /[\s(](?:node:internal\/|node:module:|ext:)/;
// The first line of Node's syntax errors.
const HEADER = /^((?:file:\/\/)?\/\S+):(\d+)\n/;
// deno-lint-ignore no-control-regex
const COLOURS = /\u001b\[[0-9;]*m/g;

/**
 * @typedef {{type: string, message: string, stack?: string | null, file?: string | null, line?: number | null, status?: number | null, code?: any, remedy?: string | null}} Wire
 */

/** An error of the host's. Sent back unchanged, it is the one that it was. */
export class RemoteError extends Error {
  /** @param {Wire} wire */
  constructor(wire) {
    super(wire.message);
    Object.defineProperty(this, 'name', { value: wire.type, configurable: true, writable: true });
    Object.defineProperty(this, 'wire', { value: wire });
    // Made where the answer arrived, its own stack would show nothing but this worker.
    const where = wire.file ? `\n    at ${wire.file}:${wire.line ?? 1}:1` : '';
    this.stack = wire.stack ?? `${wire.type}: ${wire.message}${where}`;
    for (const key of /** @type {const} */ (['status', 'code', 'remedy'])) {
      if (wire[key] !== undefined && wire[key] !== null) /** @type {any} */ (this)[key] = wire[key];
    }
  }

  get unchanged() {
    const { type, message } = /** @type {any} */ (this).wire;
    return this.message === message && this.name === type;
  }
}

/**
 * @param {string} stack
 * @returns {string} the stack with paths, and the lines of the original sources
 */
export function mapStack(stack) {
  return stack
    .replace(COLOURS, '')
    .split('\n')
    .filter((line) => !(/^\s+at /.test(line) && (line.includes(WORKER) || INSIDE.test(line))))
    .join('\n')
    .replace(FRAME, (_, file, line, column) => {
      const path = pathOf(file);
      const [row, at] = original(path, Number(line), Number(column));
      return `${path}:${row}:${at}`;
    });
}

/** @param {any} error anything that was thrown @returns {Record<string, any>} */
export function describeError(error) {
  if (error instanceof RemoteError && error.unchanged) return /** @type {any} */ (error).wire;
  if (!(error instanceof Error) && !(error && typeof error === 'object' && 'message' in error)) {
    return {
      type: 'Error',
      message: `The plugin threw ${
        show(error)
      }, which is no error. Throw an Error: it knows its line.`,
    };
  }
  const message = String(error.message).replace(COLOURS, '').slice(0, 4000);
  /** @type {Record<string, any>} */
  const wire = {
    type: String(error.name || error.constructor?.name || 'Error'),
    message: message.split('\n    at ')[0],
  };
  const stack = typeof error.stack === 'string' ? mapStack(error.stack) : '';
  if (stack) {
    wire.stack = (stack + cause(error)).slice(0, 16_000);
    Object.assign(wire, position(stack));
  }
  const status = error.status ?? error.statusCode;
  if (Number.isInteger(status) && status >= 400 && status <= 599) wire.status = status;
  if (typeof error.code === 'string' || Number.isInteger(error.code)) wire.code = error.code;
  return wire;
}

/**
 * @param {string} stack
 * @returns {{file?: string, line?: number, column?: number}} the
 *   first position in a file of the plugin's
 */
export function position(stack) {
  let first;
  for (const [, file, line, column] of stack.matchAll(FRAME)) {
    const found = { file, line: Number(line), column: Number(column) };
    if (!file.includes('/node_modules/')) return found;
    first ??= found;
  }
  const parsed = HEADER.exec(stack);
  return first ?? (parsed ? { file: pathOf(parsed[1]), line: Number(parsed[2]) } : {});
}

const PERMISSIONS = /** @type {Record<string, string>} */ ({
  read: 'read:files',
  write: 'write:files',
  net: 'net:connect',
  env: 'env:read',
  run: 'process:spawn',
});

/**
 * @param {any} error
 * @returns {[string, string, string] | null} the permission that the runtime missed, for what, and
 *   where in the plugin's code
 */
export function denial(error) {
  if (error?.name !== 'NotCapable') return null;
  const found = /^Requires (\w+) access(?: to "?(.*?)"?)?,/.exec(String(error.message));
  if (!found) return null;
  const { file, line } = position(mapStack(String(error.stack)));
  return [PERMISSIONS[found[1]] ?? found[1], found[2] ?? '', file ? `${file}:${line}` : ''];
}

/** @param {any} error */
function cause(error) {
  if (!(error.cause instanceof Error) || typeof error.cause.stack !== 'string') return '';
  return `\nCaused by: ${mapStack(error.cause.stack)}`;
}

/** @param {string} file */
function pathOf(file) {
  if (!file.startsWith('file:')) return file;
  try {
    return fileURLToPath(file);
  } catch {
    return file;
  }
}

/** @param {any} value */
function show(value) {
  try {
    return typeof value === 'string'
      ? JSON.stringify(value.slice(0, 200))
      : String(value).slice(0, 200);
  } catch {
    return `a value of type ${typeof value}`;
  }
}
