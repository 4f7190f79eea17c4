/**
 * JSON and form bodies, parsed as Express's body parsers do.
 * @module
 */
import { Buffer } from 'node:buffer';
import zlib from 'node:zlib';
import { bodyOf, keepRaw } from './request.mjs';

/** Bytes of a body after decompression. */
const LARGEST = 16 * 2 ** 20;
const DECODERS = {
  gzip: zlib.gunzipSync,
  deflate: zlib.inflateSync,
  br: zlib.brotliDecompressSync,
};
const PARAMETERS = 1000;
const DEEPEST = 32;

/** An answer with a status below 500 because of what the client sent. */
export class ClientError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.name = 'HTTPError';
    this.status = status;
    Object.defineProperty(this, 'stack', { value: undefined }); // the client's fault has no line here
  }
}

/**
 * Sets `req.body`: what a JSON or form body says, `{}` for others (which `req.stream` gives).
 * @param {import('./request.mjs').Request} req
 * @returns {Promise<void> | undefined} when the body has to be waited for
 */
export function parseBody(req) {
  const body = bodyOf(req);
  const type = body === null || body === undefined
    ? ''
    : (req.headers['content-type'] ?? '').split(';')[0].trim().toLowerCase();
  const parse = type === 'application/json'
    ? parseJSON
    : type === 'application/x-www-form-urlencoded'
    ? parseForm
    : null;
  if (!parse) {
    if (body instanceof Uint8Array) keepRaw(req, body);
    req.body = {};
    return undefined;
  }
  if (body instanceof Uint8Array) {
    keepRaw(req, body);
    req.body = parse(decode(req, body));
    return undefined;
  }
  return collect(/** @type {AsyncIterable<Uint8Array>} */ (body)).then((bytes) => {
    keepRaw(req, bytes);
    req.body = parse(decode(req, bytes));
  });
}

/**
 * For a middleware: a stream stays unread for the handler, and what no parser can read is the
 * handler's business, which then answers 400.
 * @param {import('./request.mjs').Request} req
 */
export function parseBodyAhead(req) {
  const body = bodyOf(req);
  try {
    if (body === null || body === undefined || body instanceof Uint8Array) parseBody(req);
    else req.body = {};
  } catch {
    req.body = {};
  }
}

/** @param {AsyncIterable<Uint8Array>} body */
async function collect(body) {
  const parts = [];
  let size = 0;
  for await (const part of body) {
    size += part.length;
    if (size > LARGEST) throw new ClientError(413, `The body has more than ${LARGEST} bytes.`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** @param {import('./request.mjs').Request} req @param {Uint8Array} bytes @returns {string} */
function decode(req, bytes) {
  const encoding = (req.headers['content-encoding'] ?? 'identity').toLowerCase();
  let plain = bytes;
  if (encoding !== 'identity') {
    const decoder = DECODERS[/** @type {'gzip'} */ (encoding)];
    if (!decoder) {
      throw new ClientError(
        415,
        `The body's content encoding ${
          JSON.stringify(encoding)
        } is not supported; send gzip, deflate, br or identity.`,
      );
    }
    try {
      plain = decoder(bytes, { maxOutputLength: LARGEST });
    } catch (error) {
      const large = /** @type {any} */ (error).code === 'ERR_BUFFER_TOO_LARGE';
      throw new ClientError(
        large ? 413 : 400,
        large ? `The body has more than ${LARGEST} bytes.` : `The body is no ${encoding}.`,
      );
    }
  }
  const charset = /charset="?([^";\s]+)/i.exec(req.headers['content-type'] ?? '')?.[1] ?? 'utf-8';
  try {
    return new TextDecoder(charset).decode(plain);
  } catch {
    throw new ClientError(
      415,
      `The body's charset ${JSON.stringify(charset)} is not supported; send UTF-8.`,
    );
  }
}

/** @param {string} text */
function parseJSON(text) {
  if (!text) return {};
  // Only objects and arrays, as body-parser by default: a bare `"text"` is rather a wrong header.
  if (!/^\s*[[{]/.test(text)) throw new ClientError(400, 'The body is no JSON object or array.');
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ClientError(400, `The body is no JSON: ${/** @type {Error} */ (error).message}`);
  }
}

/**
 * @param {string} text
 * @returns {Record<string, any>} `a[b]=1&c=2&c=3` as `{a: {b: '1'}, c: ['2', '3']}`
 */
function parseForm(text) {
  /** @type {Record<string, any>} */ const form = {};
  let count = 0;
  for (const [key, value] of new URLSearchParams(text)) {
    if (++count > PARAMETERS) {
      throw new ClientError(413, `The form has more than ${PARAMETERS} fields.`);
    }
    const at = key.indexOf('[');
    const path = at > 0
      ? [key.slice(0, at), ...[...key.slice(at).matchAll(/\[([^[\]]*)\]/g)].map((part) => part[1])]
      : [key];
    if (path.length > DEEPEST) {
      throw new ClientError(
        400,
        `The form's field ${JSON.stringify(key.slice(0, 80))} is nested more than ${DEEPEST} deep.`,
      );
    }
    put(form, path, value);
  }
  return form;
}

/** @param {Record<string, any>} form @param {string[]} path @param {string} value */
function put(form, path, value) {
  /** @type {any} */ let target = form;
  for (let i = 0; i < path.length; i++) {
    const last = i === path.length - 1;
    const key = path[i];
    if (Array.isArray(target) && key === '') {
      const item = last ? value : path[i + 1] === '' ? [] : {};
      target.push(item);
      target = item;
      continue;
    }
    const known = Object.hasOwn(target, key) ? target[key] : undefined;
    if (last) return define(target, key, known === undefined ? value : [known, value].flat());
    const next = typeof known === 'object'
      ? known
      : path[i + 1] === ''
      ? (known === undefined ? [] : [known])
      : {};
    define(target, key, next);
    target = next;
  }
}

/**
 * Not by assignment: `__proto__` is a field's name like any other.
 * @param {any} target
 * @param {string} key
 * @param {any} value
 */
function define(target, key, value) {
  Object.defineProperty(target, key, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  });
}
