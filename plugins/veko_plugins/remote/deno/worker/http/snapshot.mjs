/**
 * A response as hooks see it: what is answered, and not how.
 * @module
 */
import { WIRE } from '../values.mjs';

export class Snapshot {
  /** @type {[string, string][]} */ #headers;
  #changed = false;

  /** @param {{status: number, headers: [string, string][], body?: any}} wire */
  constructor(wire) {
    this.statusCode = wire.status;
    this.#headers = Array.isArray(wire.headers) ? wire.headers : Object.entries(wire.headers ?? {});
    /** Text or bytes, if it is no stream. */
    this.body = wire.body ?? null;
    this.headersSent = true;
    Object.defineProperty(this, 'original', { value: wire });
  }

  get pairs() {
    return this.#headers;
  }

  get headers() {
    return Object.fromEntries(this.#headers.map(([name, value]) => [name.toLowerCase(), value]));
  }

  /** @param {string} name */
  get(name) {
    const lower = name.toLowerCase();
    return this.#headers.find(([known]) => known.toLowerCase() === lower)?.[1];
  }

  /** @param {string} name */
  getHeader(name) {
    return this.get(name);
  }

  /** @param {number} code */
  status(code) {
    this.statusCode = code;
    return this;
  }

  /** @param {string} name @param {any} value */
  setHeader(name, value) {
    const lower = name.toLowerCase();
    this.#headers = this.#headers.filter(([known]) => known.toLowerCase() !== lower);
    this.#headers.push([name, String(value)]);
    this.#changed = true;
    return this;
  }

  /** @param {string} name @param {any} value */
  set(name, value) {
    return this.setHeader(name, value);
  }

  /** @param {string} name */
  removeHeader(name) {
    this.#headers = this.#headers.filter(([known]) => known.toLowerCase() !== name.toLowerCase());
    this.#changed = true;
    return this;
  }

  get changed() {
    return this.#changed || this.statusCode !== /** @type {any} */ (this).original.status;
  }

  /** @param {import('../values.mjs').Values} values */
  [WIRE](values) {
    return values.mark('response', { status: this.statusCode, headers: this.#headers });
  }
}
