/**
 * The worker: one plugin, one process, spoken to over descriptor 0.
 * @module
 */
import { writeSync } from 'node:fs';
import process from 'node:process';
import { Connection, PROTOCOL } from './connection.mjs';
import { describeError } from './errors.mjs';
import { KINDS } from './kinds.mjs';
import { prepareRequire } from './modules.mjs';
import { logger, redirectOutput } from './output.mjs';
import { Plugin } from './plugin.mjs';
import { watchRefusals } from './refusals.mjs';

const deno = /** @type {any} */ (globalThis).Deno;
/** @type {(code?: any) => never} */ const exit = deno ? deno.exit : process.exit.bind(process);
// Frames of the runtime and of this worker come first, and are left out of reports.
Error.stackTraceLimit = 30;
/** @type {Record<string, (...args: any[]) => any>} */ const methods = {};
const connection = new Connection(methods, KINDS, (error) => {
  const broken = error && /** @type {any} */ (error).code !== 'ECONNRESET';
  if (broken) writeSync(2, `${error.message}\n`);
  exit(broken ? 1 : 0);
});
const log = logger(connection);

redirectOutput(log);
prepareRequire();
process.on('uncaughtException', (error) => connection.report(error, 'uncaught error'));
process.on('unhandledRejection', (error) => connection.report(error, 'unhandled rejection'));

// Ends the worker only. The host sees a crash; the last line of the log says what caused it.
const end = (/** @type {any} */ code) => {
  log(
    'error',
    `The plugin called process.exit(${code ?? ''}).`,
    describeError(new Error('process.exit')).stack ?? null,
  );
  connection.writer.flush();
  exit(code);
};
/** @type {any} */ (process).exit = end;
if (deno) deno.exit = end;

const runtime = deno
  ? `deno ${deno.version.deno} (v8 ${deno.version.v8})`
  : `node ${process.versions.node} (v8 ${process.versions.v8})`;
const hello = await connection.open({
  protocol: PROTOCOL,
  runtime,
  node: process.versions.node,
  pid: process.pid,
});
watchRefusals((...denied) => connection.note('denied', ...denied));
const plugin = new Plugin(connection, hello, log);
Object.assign(methods, plugin.methods(), {
  shutdown() {
    connection.writer.flush();
    exit(0);
  },
});
