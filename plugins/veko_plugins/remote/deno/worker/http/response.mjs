/**
 * `res`, as Express has it. It answers once; what follows is ignored or an error, as there.
 * @module
 */
import { Buffer } from 'node:buffer';
import { EventEmitter } from 'node:events';
import fs from 'node:fs';
import { STATUS_CODES } from 'node:http';
import path from 'node:path';
import { WIRE } from '../values.mjs';
import { serializeCookie } from './cookies.mjs';
import { Pipe } from './pipe.mjs';
import { mediaType } from './types.mjs';

/** @typedef {string | Uint8Array | AsyncIterable<Uint8Array> | null} Body */

export class Response extends EventEmitter {
  statusCode = 200;
  statusMessage = '';
  headersSent = false;
  writableEnded = false;
  closed = false;
  /** @type {Record<string, any>} */ locals = Object.create(null);
  /** @type {Map<string, [string, any]>} lower-case name → name and value */ #headers = new Map();
  /** @type {((body: Body) => void) | null} */ #answer;
  /** @type {Pipe | null} */ #pipe = null;
  /** Whether `writeHead` was called. */ #headed = false;

  /** @param {any} req @param {(body: Body) => void} answer called once, with what is sent */
  constructor(req, answer) {
    super();
    this.req = req;
    this.#answer = answer;
  }

  get finished() {
    return this.writableEnded;
  }

  get writable() {
    return !this.writableEnded;
  }

  // ---- headers

  /** @param {number} code */
  status(code) {
    if (!Number.isInteger(code) || code < 100 || code > 999) {
      throw new RangeError(`${String(code)} is no HTTP status.`);
    }
    this.statusCode = code;
    return this;
  }

  /** @param {string} name @param {any} value */
  setHeader(name, value) {
    if (this.headersSent) {
      const error = new Error(`The header ${name} cannot be set: the headers were sent already.`);
      throw Object.assign(error, { code: 'ERR_HTTP_HEADERS_SENT' });
    }
    if (value === undefined) throw new TypeError(`The header ${name} has the value undefined.`);
    this.#headers.set(name.toLowerCase(), [
      name,
      Array.isArray(value) ? value.map(String) : String(value),
    ]);
    return this;
  }

  /** @param {string} name */
  getHeader(name) {
    return this.#headers.get(name.toLowerCase())?.[1];
  }

  /** @param {string} name */
  hasHeader(name) {
    return this.#headers.has(name.toLowerCase());
  }

  /** @param {string} name */
  removeHeader(name) {
    this.#headers.delete(name.toLowerCase());
    return this;
  }

  getHeaderNames() {
    return [...this.#headers.keys()];
  }

  getHeaders() {
    return Object.fromEntries([...this.#headers].map(([name, [, value]]) => [name, value]));
  }

  /** @returns {[string, string][]} one pair a value */
  headerPairs() {
    /** @type {[string, string][]} */ const pairs = [];
    for (const [name, value] of this.#headers.values()) {
      if (Array.isArray(value)) { for (const item of value) pairs.push([name, item]); }
      else pairs.push([name, value]);
    }
    return pairs;
  }

  /** @param {string | Record<string, any>} name @param {any} [value] */
  set(name, value) {
    if (typeof name === 'object') { for (const key in name) this.set(key, name[key]); }
    else if (name.toLowerCase() === 'content-type' && typeof value === 'string') {
      this.setHeader(name, mediaType(value));
    } else this.setHeader(name, value);
    return this;
  }

  /** @param {string | Record<string, any>} name @param {any} [value] */
  header(name, value) {
    return this.set(name, value);
  }

  /** @param {string} name */
  get(name) {
    return this.getHeader(name);
  }

  /** @param {string} name @param {any} value */
  append(name, value) {
    const known = this.getHeader(name);
    return this.setHeader(name, known === undefined ? value : [known, value].flat());
  }

  /** @param {string} name */
  type(name) {
    return this.setHeader('Content-Type', mediaType(name));
  }

  /** @param {string} name */
  contentType(name) {
    return this.type(name);
  }

  /** @param {string} name */
  vary(name) {
    return this.append('Vary', name);
  }

  /** @param {string} url */
  location(url) {
    return this.setHeader(
      'Location',
      url === 'back'
        ? (this.req.get('referrer') ?? '/')
        : encodeURI(url).replace(/%25([0-9a-f]{2})/gi, '%$1'),
    );
  }

  /** @param {string} [name] */
  attachment(name) {
    if (name) this.type(path.extname(name) || 'bin');
    return this.setHeader(
      'Content-Disposition',
      name
        ? `attachment; filename="${
          path.basename(name).replace(/["\\\r\n]/g, '_')
        }"; filename*=UTF-8''${encodeURIComponent(path.basename(name))}`
        : 'attachment',
    );
  }

  /**
   * @param {string} name
   * @param {any} value
   * @param {Parameters<typeof serializeCookie>[2]} [options]
   */
  cookie(name, value, options) {
    return this.append('Set-Cookie', serializeCookie(name, value, options));
  }

  /** @param {string} name @param {Parameters<typeof serializeCookie>[2]} [options] */
  clearCookie(name, options) {
    return this.cookie(name, '', { ...options, maxAge: undefined, expires: new Date(1) });
  }

  // ---- bodies

  /** @param {any} data @returns {this} */
  json(data) {
    if (!this.hasHeader('content-type')) {
      this.setHeader('Content-Type', 'application/json; charset=utf-8');
    }
    return this.send(JSON.stringify(data) ?? 'null');
  }

  /** @param {any} [body] @returns {this} */
  send(body) {
    if (typeof body === 'string') {
      if (!this.hasHeader('content-type')) {
        this.setHeader('Content-Type', 'text/html; charset=utf-8');
      }
    } else if (body instanceof Uint8Array) {
      if (!this.hasHeader('content-type')) {
        this.setHeader('Content-Type', 'application/octet-stream');
      }
    } else if (body !== undefined && body !== null) return this.json(body);
    this.end(body ?? '');
    return this;
  }

  /** @param {number} code */
  sendStatus(code) {
    this.status(code).type('txt');
    return this.send(STATUS_CODES[code] ?? String(code));
  }

  /** @param {any} first a status or the address @param {any} [second] */
  redirect(first, second) {
    const [status, url] = typeof first === 'number'
      ? [first, second]
      : typeof second === 'number'
      ? [second, first]
      : [302, first];
    this.status(status).location(url).type('txt');
    this.end(`${STATUS_CODES[status]}. Redirecting to ${this.getHeader('Location')}`);
  }

  /** @param {Record<string, () => void>} handlers by media type */
  format(handlers) {
    const names = Object.keys(handlers).filter((name) => name !== 'default');
    const found = this.req.accepts(names);
    this.vary('Accept');
    if (found) {
      this.type(found);
      handlers[found]();
    } else if (handlers.default) handlers.default();
    else this.sendStatus(406);
    return this;
  }

  /**
   * @param {string} file
   * @param {any} [options] `{root, headers}`
   * @param {(error?: any) => void} [done]
   */
  sendFile(file, options, done) {
    const finish = typeof options === 'function' ? options : done;
    const root = options?.root;
    const whole = root ? path.join(root, path.normalize(`/${file}`)) : file;
    if (!root && !path.isAbsolute(file)) {
      throw new TypeError(`${file} is no absolute path. Give one, or { root: folder }.`);
    }
    fs.readFile(whole, (error, data) => {
      if (!error) {
        if (options?.headers) this.set(options.headers);
        if (!this.hasHeader('content-type')) this.type(path.extname(whole) || 'bin');
        this.end(data);
      } else if (!finish) {
        this.sendStatus(error.code === 'ENOENT' || error.code === 'EISDIR' ? 404 : 500);
      }
      finish?.(error ?? undefined);
    });
  }

  /**
   * @param {string} file
   * @param {string} [name]
   * @param {any} [options]
   * @param {(error?: any) => void} [done]
   */
  download(file, name, options, done) {
    this.attachment(name ?? path.basename(file));
    this.sendFile(path.resolve(file), options ?? {}, done);
  }

  /** @param {number} status @param {any} [reason] @param {Record<string, any>} [headers] */
  writeHead(status, reason, headers) {
    this.statusCode = status;
    this.#headed = true;
    const given = typeof reason === 'object' ? reason : headers;
    for (const name in given ?? {}) this.setHeader(name, given[name]);
    return this;
  }

  /** Node's own name for it, which session and compression middlewares call. */
  _implicitHeader() {
    this.writeHead(this.statusCode);
  }

  get app() {
    return this.req?.app;
  }

  flushHeaders() {
    this.#stream();
  }

  /** @param {string | Uint8Array} chunk @param {any} [encoding] @param {() => void} [done] */
  write(chunk, encoding, done) {
    if (this.writableEnded) {
      throw Object.assign(new Error('The response was ended already.'), {
        code: 'ERR_STREAM_WRITE_AFTER_END',
      });
    }
    const more = this.#stream().push(bytes(chunk, encoding), () => this.emit('drain'));
    (typeof encoding === 'function' ? encoding : done)?.();
    return more;
  }

  /** @param {any} [chunk] @param {any} [encoding] @param {() => void} [done] */
  end(chunk, encoding, done) {
    if (typeof chunk === 'function') [chunk, done] = [undefined, chunk];
    if (typeof encoding === 'function') [encoding, done] = [undefined, encoding];
    if (this.writableEnded) return this;
    if (this.#pipe) {
      if (chunk !== undefined && chunk !== null && chunk.length) {
        this.#pipe.push(bytes(chunk, encoding), () => {});
      }
      this.#pipe.end();
      this.writableEnded = true;
    } else {
      this.writableEnded = true;
      this.#send(
        chunk === undefined || chunk === null || chunk.length === 0
          ? null
          : typeof chunk === 'string' && (!encoding || /^utf-?8$/i.test(encoding))
          ? chunk
          : bytes(chunk, encoding),
      );
    }
    if (done) this.once('finish', done);
    this.#finishSoon();
    return this;
  }

  /** The response of somebody else goes out as it is. @param {Body} body */
  pass(body) {
    this.writableEnded = true;
    this.#send(body);
    this.#finishSoon();
  }

  #finishSoon() {
    if (this.listenerCount('finish') + this.listenerCount('close')) {
      setImmediate(() => this.finish());
    }
  }

  finish() {
    this.closed = true;
    this.emit('finish');
    this.emit('close');
  }

  /** The client has left: nothing is sent any more. */
  abandon() {
    if (this.closed) return;
    this.#answer = null;
    this.#pipe?.end();
    this.closed = this.writableEnded = true;
    this.emit('close');
  }

  #stream() {
    if (!this.#pipe) {
      this.#pipe = new Pipe(() => this.abandon());
      this.#send(this.#pipe);
    }
    return this.#pipe;
  }

  /** @param {Body} body */
  #send(body) {
    // A middleware that wants to add headers at the last moment has replaced it.
    if (Object.hasOwn(this, 'writeHead') && !this.#headed) this.writeHead(this.statusCode);
    this.headersSent = true;
    const answer = this.#answer;
    this.#answer = null;
    answer?.(body);
  }

  /** @param {import('../values.mjs').Values} values */
  [WIRE](values) {
    return values.mark('response', { status: this.statusCode, headers: this.headerPairs() });
  }
}

/** @param {any} chunk @param {any} encoding */
function bytes(chunk, encoding) {
  if (chunk instanceof Uint8Array) return chunk;
  if (typeof chunk === 'string') {
    return Buffer.from(
      chunk,
      typeof encoding === 'string' ? /** @type {any} */ (encoding) : 'utf8',
    );
  }
  throw new TypeError(
    `A response's body is text or bytes, not ${
      chunk === null ? 'null' : typeof chunk
    }. Use res.json for data.`,
  );
}
