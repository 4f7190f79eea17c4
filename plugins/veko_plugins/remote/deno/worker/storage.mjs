/**
 * `context.storage`: reads are plain calls on a mirror, writes go to the host in batches.
 *
 * What is no JSON (functions, clients, class instances) stays in this worker's memory, with one
 * warning a key, because the original's plugins share such things through the storage.
 * @module
 */
import { portable } from './portable.mjs';

export class Storage {
  /** @type {Map<string, any>} */ #stored = new Map();
  /** @type {Map<string, any>} */ #kept = new Map();
  /** @type {Record<string, any>} */ #changes = Object.create(null);
  /** @type {Set<string>} */ #deleted = new Set();
  #cleared = false;
  #scheduled = false;
  #open = false;

  /**
   * @param {import('./connection.mjs').Connection} connection
   * @param {import('./output.mjs').Log} log
   */
  constructor(connection, log) {
    this.connection = connection;
    this.log = log;
  }

  /**
   * @param {Record<string, any> | null} items all that is stored; `null`: the plugin has no storage
   */
  open(items) {
    this.#open = items !== null;
    this.#stored = new Map(Object.entries(items ?? {}));
  }

  /** @param {string} key @param {any} [fallback] */
  get(key, fallback) {
    const name = this.#name(key);
    if (this.#kept.has(name)) return this.#kept.get(name);
    const value = this.#stored.get(name);
    // A copy: changing what was read must not look as if it were stored.
    return value === undefined
      ? fallback
      : typeof value === 'object'
      ? structuredClone(value)
      : value;
  }

  /** @param {string} key @param {any} value @returns {boolean} */
  set(key, value) {
    const name = this.#name(key);
    if (value === undefined) return this.delete(name) || true;
    if (!portable(value)) return this.#keep(name, value);
    this.#kept.delete(name);
    const text = JSON.stringify(value);
    this.#stored.set(name, JSON.parse(text));
    this.#deleted.delete(name);
    this.#changes[name] = this.#stored.get(name);
    this.#schedule();
    return true;
  }

  /** @param {string} name @param {any} value */
  #keep(name, value) {
    if (!this.#kept.has(name)) {
      this.log(
        'warning',
        `storage.set(${JSON.stringify(name)}): ${
          typeof value === 'function' ? 'a function' : 'a value that is no JSON'
        } stays in this plugin's memory; it is not stored, and other plugins do not see it. Share it with context.provide.`,
      );
    }
    this.#kept.set(name, value);
    if (this.#stored.has(name)) this.#remove(name);
    return true;
  }

  /** @param {string} key @returns {boolean} whether there was something */
  delete(key) {
    const name = this.#name(key);
    const kept = this.#kept.delete(name);
    const stored = this.#stored.has(name);
    if (stored) this.#remove(name);
    return kept || stored;
  }

  /** @param {string} name */
  #remove(name) {
    this.#stored.delete(name);
    delete this.#changes[name];
    this.#deleted.add(name);
    this.#schedule();
  }

  clear() {
    this.#name('');
    this.#kept.clear();
    this.#stored.clear();
    this.#changes = Object.create(null);
    this.#deleted.clear();
    this.#cleared = true;
    this.#schedule();
    return true;
  }

  /** @param {string} key */
  has(key) {
    return this.#kept.has(key) || this.#stored.has(key);
  }

  keys() {
    return [...new Set([...this.#stored.keys(), ...this.#kept.keys()])];
  }

  values() {
    return this.keys().map((key) => this.get(key));
  }

  items() {
    return this.keys().map((key) => [key, this.get(key)]);
  }

  entries() {
    return this.items();
  }

  all() {
    return Object.fromEntries(this.items());
  }

  get size() {
    return this.keys().length;
  }

  /** @param {Record<string, any>} items stored in one transaction */
  update(items) {
    for (const key in items) this.set(key, items[key]);
    return true;
  }

  /** Waits until all that was set is durable. */
  async flush() {
    const batch = this.#batch();
    await this.connection.call('storage', ...(batch ?? [{}, [], false]));
  }

  /** What others changed. @param {Record<string, any>} changes @param {string[]} deleted */
  changed(changes, deleted) {
    for (const [key, value] of Object.entries(changes)) {
      this.#kept.delete(key);
      this.#stored.set(key, value);
    }
    for (const key of deleted) this.#stored.delete(key);
  }

  /** @param {string} key */
  #name(key) {
    if (!this.#open) {
      throw new Error(
        'This plugin has no storage. Add read:database and write:database to its permissions.',
      );
    }
    return String(key);
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      const batch = this.#batch();
      if (batch) this.connection.note('storage', ...batch);
    });
  }

  /** @returns {[Record<string, any>, string[], boolean] | null} */
  #batch() {
    this.#scheduled = false;
    const batch = /** @type {[Record<string, any>, string[], boolean]} */ ([
      this.#changes,
      [...this.#deleted],
      this.#cleared,
    ]);
    this.#changes = Object.create(null);
    this.#deleted.clear();
    this.#cleared = false;
    return batch[2] || batch[1].length || Object.keys(batch[0]).length ? batch : null;
  }
}
