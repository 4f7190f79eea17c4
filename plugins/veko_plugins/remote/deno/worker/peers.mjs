/**
 * Other plugins, as this one sees them: their data at once, their functions by asynchronous calls.
 * @module
 */

import { portable } from './portable.mjs';

/** @typedef {{functions: string[], constants: Record<string, any>}} Exports */

/**
 * Splits what is shown to others into names of functions and data.
 * @param {any} value
 * @returns {Exports}
 */
export function describeExports(value) {
  /** @type {string[]} */ const functions = [];
  /** @type {Record<string, any>} */ const constants = {};
  walk(value, '', functions, constants, 0);
  return { functions, constants };
}

/**
 * @param {any} value
 * @param {string} prefix
 * @param {string[]} functions
 * @param {Record<string, any>} constants
 * @param {number} depth
 */
function walk(value, prefix, functions, constants, depth) {
  for (const name of memberNames(value)) {
    let member;
    try {
      member = value[name];
    } catch {
      continue; // a getter that fails is no export
    }
    if (typeof member === 'function') functions.push(prefix + name);
    else if (portable(member)) constants[prefix + name] = member;
    else if (depth < 2 && isPlain(member)) {
      walk(member, `${prefix}${name}.`, functions, constants, depth + 1);
    }
  }
}

/** @param {any} value @returns {string[]} own members, and the methods of a class instance */
function memberNames(value) {
  const names = new Set(Object.keys(value));
  for (
    let level = Object.getPrototypeOf(value);
    level && level !== Object.prototype && level !== Function.prototype;
    level = Object.getPrototypeOf(level)
  ) {
    for (const name of Object.getOwnPropertyNames(level)) {
      if (name !== 'constructor' && !name.startsWith('_')) names.add(name);
    }
  }
  return [...names];
}

/** @param {any} value */
function isPlain(value) {
  return value !== null && typeof value === 'object' &&
    [Object.prototype, null].includes(Object.getPrototypeOf(value));
}

/**
 * @param {Exports | undefined} exports what is known of it; unknown members count as functions
 * @param {(path: string, args: any[]) => Promise<any>} call
 * @returns {any}
 */
export function facade(exports, call) {
  /** @type {any} */ const target = exports?.functions.includes('__call__')
    ? (/** @type {any[]} */ ...args) => call('__call__', args)
    : {};
  const put = (/** @type {string} */ path, /** @type {any} */ value) => {
    const parts = path.split('.');
    // Names come from another plugin, which must not reach this one's prototypes.
    if (parts.some((part) => part === '__proto__' || part === 'prototype')) return;
    let at = target;
    for (const part of parts.slice(0, -1)) at = at[part] ??= {};
    at[parts[parts.length - 1]] = value;
  };
  for (const [path, value] of Object.entries(exports?.constants ?? {})) put(path, value);
  for (const path of exports?.functions ?? []) {
    put(path, (/** @type {any[]} */ ...args) => call(path, args));
  }
  if (exports) return target;
  return new Proxy(target, {
    get(known, name) {
      // `then` would make the facade look like a promise to `await`.
      if (name in known || typeof name === 'symbol' || name === 'then') {
        return known[/** @type {string} */ (name)];
      }
      return (known[name] = (/** @type {any[]} */ ...args) => call(name, args));
    },
  });
}

/**
 * @param {any} value
 * @param {string} path
 * @returns {[any, any]} a member by its dotted path, and the object that has it
 */
export function member(value, path) {
  let owner = value;
  const parts = path.split('.');
  for (const part of parts.slice(0, -1)) owner = owner?.[part];
  return [owner?.[parts[parts.length - 1]], owner];
}

export class Peers {
  /** @type {any[]} */ #infos = [];
  /** @type {Record<string, Exports>} */ #exports = {};
  /** @type {Map<string, any>} */ #modules = new Map();

  /** @param {import('./connection.mjs').Connection} connection */
  constructor(connection) {
    this.connection = connection;
  }

  /** @param {any[]} infos @param {Record<string, Exports>} [exports] */
  set(infos, exports) {
    this.#infos = infos;
    if (exports) this.#exports = exports;
    this.#modules.clear();
  }

  list() {
    return this.#infos.map((info) => ({ ...info }));
  }

  /** @param {string} name */
  get(name) {
    const info = this.#infos.find((item) => item.name === name);
    if (!info) return undefined;
    if (!this.#modules.has(name)) {
      this.#modules.set(
        name,
        facade(
          this.#exports[name],
          (path, args) => this.connection.call('plugin_call', name, path, args),
        ),
      );
    }
    const module = this.#modules.get(name);
    return { ...info, module, exports: module };
  }

  /** @param {string} name @param {any} answer what `use` and `when` answer */
  service(name, answer) {
    if (answer === null || typeof answer !== 'object') return answer;
    if ('value' in answer && Object.keys(answer).length === 1) return answer.value;
    if (!('functions' in answer)) return answer;
    return facade(answer, (path, args) => this.connection.call('service_call', name, path, args));
  }
}
