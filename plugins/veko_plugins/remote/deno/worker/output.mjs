/**
 * What a plugin prints goes to the host's log: `console.*`, `process.stdout` and `Deno.stdout`.
 *
 * The worker's descriptor 1 is the host's socket, where a printed line would be taken for a frame.
 * @module
 */
import { Console } from 'node:console';
import process from 'node:process';
import { Readable, Writable } from 'node:stream';
import { formatWithOptions } from 'node:util';

/** Bytes not read by the host past which log lines are dropped (and counted) instead of kept. */
const BACKLOG = 4 * 2 ** 20;
/** Characters of a line that are kept. */
const LONGEST = 16 * 2 ** 10;

/**
 * @typedef {(level: string, message: string, details?: any, fields?: Record<string, any>) => void} Log
 */

/** @param {import('./connection.mjs').Connection} connection @returns {Log} */
export function logger(connection) {
  let dropped = 0;
  const report = () => {
    if (connection.writer.waiting > BACKLOG) return void setTimeout(report, 20);
    const text =
      `${dropped} log lines were dropped: the plugin printed faster than they were read.`;
    dropped = 0;
    connection.note('log', 'warning', text, null, {});
  };
  return (level, message, details = null, fields = {}) => {
    if (connection.writer.waiting > BACKLOG) {
      if (dropped++ === 0) setTimeout(report, 20);
      return;
    }
    const text = String(message);
    connection.note(
      'log',
      level,
      text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text,
      details,
      fields,
    );
  };
}

/**
 * A stream whose lines are log records.
 * @param {Log} log
 * @param {string} level
 * @param {number} fd
 */
function lines(log, level, fd) {
  let rest = '';
  const stream = new Writable({
    decodeStrings: false,
    write(chunk, _, done) {
      const parts = (rest + chunk).split('\n');
      rest = /** @type {string} */ (parts.pop());
      for (const line of parts) if (line) log(level, line);
      if (rest.length > LONGEST) {
        log(level, rest);
        rest = '';
      }
      done();
    },
  });
  return Object.assign(stream, { fd, isTTY: false });
}

/** @param {Log} log */
export function redirectOutput(log) {
  const stdout = lines(log, 'info', 1);
  const stderr = lines(log, 'error', 2);
  const standard = new Console({ stdout, stderr });
  for (
    const name of /** @type {const} */ ([
      'assert',
      'count',
      'countReset',
      'dir',
      'dirxml',
      'group',
      'groupCollapsed',
      'groupEnd',
      'table',
      'time',
      'timeEnd',
      'timeLog',
    ])
  ) {
    /** @type {any} */ (console)[name] = /** @type {any} */ (standard)[name];
  }
  const levels = { log: 'info', info: 'info', debug: 'debug', warn: 'warning', error: 'error' };
  for (const [name, level] of Object.entries(levels)) {
    /** @type {any} */ (console)[name] = (/** @type {any[]} */ ...args) =>
      log(level, formatWithOptions({ colors: false }, ...args));
  }
  console.trace = (...args) =>
    log('debug', `${formatWithOptions({}, ...args)}\n${new Error('trace').stack}`);
  const stdin = new Readable({
    read() {
      this.push(null);
    },
  });
  for (const [name, value] of Object.entries({ stdout, stderr, stdin })) {
    Object.defineProperty(process, name, { value, configurable: true, writable: true });
  }
  Object.assign(console, { _stdout: stdout, _stderr: stderr });
  redirectDeno(stdout, stderr);
}

/** @param {Writable} stdout @param {Writable} stderr */
function redirectDeno(stdout, stderr) {
  const deno = /** @type {any} */ (globalThis).Deno;
  if (!deno) return;
  const text = new TextDecoder();
  for (const [name, stream] of Object.entries({ stdout, stderr })) {
    deno[name].writeSync = (/** @type {Uint8Array} */ bytes) => {
      stream.write(text.decode(bytes));
      return bytes.length;
    };
    deno[name].write = (/** @type {Uint8Array} */ bytes) =>
      Promise.resolve(deno[name].writeSync(bytes));
  }
  deno.stdin.readSync = () => null;
  deno.stdin.read = () => Promise.resolve(null);
}
