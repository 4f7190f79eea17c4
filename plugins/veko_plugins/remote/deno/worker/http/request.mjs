/**
 * `req`, as Express has it.
 *
 * Standard members live on the prototype, so the own enumerable ones are exactly what hooks and
 * middleware hung on the request: its `state`, which travels with it from plugin to plugin.
 * @module
 */
import { Readable } from 'node:stream';
import { Opaque, WIRE } from '../values.mjs';
import { currentSignal } from '../current.mjs';
import { portable } from '../portable.mjs';
import { parseCookies } from './cookies.mjs';

const RAW = Symbol('request');
const ORIGINAL = Symbol('originalUrl');
const CHANGED = Symbol('changed');
const RESPONSE = Symbol('response');
const EXTRA = Symbol('extra');
/** Events that speak of the connection, not of the body. */
const ENDS = new Set(['close', 'aborted']);
const DEFAULT_PORTS = { http: '80', https: '443' };

/**
 * @typedef {object} Wire
 * @property {string} method
 * @property {string} url path and query, as sent
 * @property {string} path
 * @property {string} scheme
 * @property {string} host
 * @property {Record<string, any>} params
 * @property {Record<string, string | string[]>} query
 * @property {Record<string, string>} headers
 * @property {string | null} ip
 * @property {Uint8Array | AsyncIterable<Uint8Array> | null} body
 * @property {Record<string, any>} state
 */

export class Request {
  /** Its response. @type {import('./response.mjs').Response | undefined} */ [RESPONSE] = undefined;
  /** Standard members that were set. @type {Set<keyof Wire> | null} */ [CHANGED] = null;
  /** Made here, and not sent. @type {{body?: any, rawBody?: Uint8Array, cookies?: any, stream?: Readable}} */ [
    EXTRA
  ] = {};

  /** @param {Wire} wire */
  constructor(wire) {
    this[RAW] = wire;
    this[ORIGINAL] = wire.url;
    for (const name in wire.state) /** @type {any} */ (this)[name] = wire.state[name];
  }

  get method() {
    return this[RAW].method;
  }

  set method(value) {
    change(this, 'method', value);
  }

  /** Path and query; setting it sets `path` too. */
  get url() {
    return this[RAW].url;
  }

  set url(value) {
    change(this, 'url', value);
    change(this, 'path', String(value).split('?')[0]);
  }

  get path() {
    return this[RAW].path;
  }

  set path(value) {
    change(this, 'path', value);
  }

  get params() {
    return this[RAW].params;
  }

  set params(value) {
    change(this, 'params', value);
  }

  get query() {
    return this[RAW].query;
  }

  set query(value) {
    change(this, 'query', value);
  }

  get headers() {
    return this[RAW].headers;
  }

  set headers(value) {
    change(this, 'headers', value);
  }

  get ip() {
    return this[RAW].ip;
  }

  set ip(value) {
    change(this, 'ip', value);
  }

  get originalUrl() {
    return this[ORIGINAL];
  }

  get res() {
    return this[RESPONSE];
  }

  set res(value) {
    this[RESPONSE] = value;
  }

  /** Aborted when the client has left, or the time for the answer is over. */
  get signal() {
    return currentSignal();
  }

  get hostname() {
    return (this[RAW].host ?? '').replace(/:\d+$/, '');
  }

  get host() {
    return this[RAW].host;
  }

  get protocol() {
    return this[RAW].scheme;
  }

  get secure() {
    return this[RAW].scheme === 'https';
  }

  get ips() {
    return [];
  }

  get baseUrl() {
    return '';
  }

  get httpVersion() {
    return '1.1';
  }

  get xhr() {
    return (this.get('x-requested-with') ?? '').toLowerCase() === 'xmlhttprequest';
  }

  get subdomains() {
    return this.hostname.split('.').reverse().slice(2);
  }

  get socket() {
    const port = this[RAW].host?.split(':')[1] ??
      DEFAULT_PORTS[/** @type {'http'} */ (this[RAW].scheme)];
    return { remoteAddress: this.ip, localPort: Number(port), encrypted: this.secure };
  }

  get connection() {
    return this.socket;
  }

  get cookies() {
    return this[EXTRA].cookies ??= parseCookies(this.headers.cookie);
  }

  set cookies(value) {
    this[EXTRA].cookies = value;
  }

  get body() {
    return this[EXTRA].body;
  }

  set body(value) {
    this[EXTRA].body = value;
  }

  /** The bytes of the body, if it was read whole. @returns {Uint8Array | null} */
  get rawBody() {
    return this[EXTRA].rawBody ?? null;
  }

  /** @param {string} name @returns {string | undefined} */
  get(name) {
    const lower = String(name).toLowerCase();
    return this.headers[lower] ??
      (lower === 'referrer'
        ? this.headers.referer
        : lower === 'referer'
        ? this.headers.referrer
        : undefined);
  }

  /** @param {string} name */
  header(name) {
    return this.get(name);
  }

  /**
   * @param {string[]} types `json`, `html`, `application/*`, …
   * @returns {string | false} the first that the body is
   */
  is(...types) {
    const mine = (this.get('content-type') ?? '').split(';')[0].trim().toLowerCase();
    return (mine && types.flat().find((type) => matches(type, mine))) || false;
  }

  /**
   * @param {string[]} types
   * @returns {string | false | string[]} the one that the client likes best
   */
  accepts(...types) {
    const wanted = (this.get('accept') ?? '*/*').split(',').map((part) => {
      const [type, ...parameters] = part.trim().toLowerCase().split(';');
      const quality = parameters.map((item) => /^\s*q=([\d.]+)/.exec(item)?.[1]).find(Boolean);
      return { type: type.trim(), quality: quality === undefined ? 1 : Number(quality) };
    });
    const order = wanted.filter((item) => item.quality > 0).sort((a, b) => b.quality - a.quality);
    const offered = types.flat();
    if (!offered.length) return order.map((item) => item.type);
    for (const { type } of order) {
      const found = offered.find((offer) => matches(type, full(offer)) || matches(offer, type));
      if (found) return found;
    }
    return false;
  }

  /** The body as a stream, for parsers of one's own. */
  get stream() {
    const extra = this[EXTRA];
    const body = extra.rawBody ?? this[RAW].body;
    return (extra.stream ??= body === null || body === undefined
      ? Readable.from([])
      : body instanceof Uint8Array
      ? Readable.from([body])
      : Readable.from(body));
  }

  /** @param {string} event @param {(...args: any[]) => void} listener */
  on(event, listener) {
    if (ENDS.has(event)) this.res?.on('close', listener);
    else this.stream.on(event, listener);
    return this;
  }

  /** @param {string} event @param {(...args: any[]) => void} listener */
  once(event, listener) {
    if (ENDS.has(event)) this.res?.once('close', listener);
    else this.stream.once(event, listener);
    return this;
  }

  [Symbol.asyncIterator]() {
    return this.stream[Symbol.asyncIterator]();
  }

  /** @param {import('../values.mjs').Values} values */
  [WIRE](values) {
    /** @type {Record<string, any>} */ const wire = { state: stateOf(this) };
    for (const name of this[CHANGED] ?? []) wire[name] = this[RAW][name];
    return values.mark('request', wire);
  }
}

// The rest of a readable stream, which is made when the first of these is asked for.
const METHODS = /** @type {const} */ ([
  'addListener',
  'destroy',
  'emit',
  'listenerCount',
  'listeners',
  'off',
  'pause',
  'pipe',
  'prependListener',
  'read',
  'removeAllListeners',
  'removeListener',
  'resume',
  'setEncoding',
  'unpipe',
]);
for (const name of METHODS) {
  Object.defineProperty(Request.prototype, name, {
    /** @param {any[]} args */
    value(...args) {
      const result = /** @type {any} */ (this.stream)[name](...args);
      return result === this.stream ? this : result;
    },
    writable: true,
    configurable: true,
  });
}
for (const name of /** @type {const} */ (['readable', 'readableEnded', 'destroyed'])) {
  Object.defineProperty(Request.prototype, name, {
    get() {
      return this.stream[name];
    },
    configurable: true,
  });
}

/** @param {Request} req @param {keyof Wire} name @param {any} value */
function change(req, name, value) {
  /** @type {any} */ (req[RAW])[name] = value;
  (req[CHANGED] ??= new Set()).add(name);
}

/** @param {Request} req */
export function bodyOf(req) {
  return req[RAW].body;
}

/** @param {Request} req @param {Uint8Array} bytes */
export function keepRaw(req, bytes) {
  req[EXTRA].rawBody = bytes;
}

/**
 * What was hung on a request. What is no JSON stays here: the host keeps a handle and brings it
 * back.
 * @param {Request} req
 * @returns {Record<string, any> | null}
 */
export function stateOf(req) {
  /** @type {Record<string, any> | null} */ let state = null;
  for (const name of Object.keys(req)) {
    const value = /** @type {any} */ (req)[name];
    if (value === undefined) continue;
    (state ??= {})[name] = typeof value === 'function' || portable(value)
      ? value
      : new Opaque(value);
  }
  return state;
}

/** @param {Request} req @returns {boolean} whether the host's request is to be changed */
export function changed(req) {
  if (req[CHANGED]) return true;
  const state = req[RAW].state;
  const names = Object.keys(req);
  const now = /** @type {any} */ (req);
  // An object may have been changed in place: it counts as changed.
  return names.length !== Object.keys(state).length ||
    names.some((name) => typeof now[name] === 'object' || now[name] !== state[name]);
}

/** @param {string} type */
function full(type) {
  const short = /** @type {Record<string, string>} */ ({
    json: 'application/json',
    html: 'text/html',
    text: 'text/plain',
    xml: 'application/xml',
    urlencoded: 'application/x-www-form-urlencoded',
    multipart: 'multipart/*',
  });
  return short[type] ?? type;
}

/** @param {string} pattern @param {string} type */
function matches(pattern, type) {
  const wanted = full(pattern);
  if (wanted === type || wanted === '*/*') return true;
  if (wanted.endsWith('/*')) return type.startsWith(wanted.slice(0, -1));
  return wanted.startsWith('+') && type.endsWith(wanted);
}
