/**
 * JavaScript values on the wire: plain JSON, and marks for what JSON has no word for.
 *
 * A mark is an object whose only key is the connection's nonce, which no client can know. Text
 * without the nonce is parsed by `JSON.parse` alone.
 * @module
 */
import { Buffer } from 'node:buffer';
import { describeError, RemoteError } from './errors.mjs';
import { hostHandle } from './handles.mjs';
import { HostStream, serveIterator } from './streams.mjs';

/** An object gives its own form on the wire: `[kind, ...rest]`. */
export const WIRE = Symbol('wire');

/** An object that the host keeps and gives back, without being able to look into it. */
export class Opaque {
  /** @param {any} value */
  constructor(value) {
    this.value = value;
  }
}

const DEEPEST = 200;
/** Characters from which a text travels in the tail, where it need not be escaped and parsed. */
const LONG = 16 * 2 ** 10;

export class Values {
  /** Handles in the message that is being encoded. @type {number[]} */ #given = [];

  /**
   * @param {string} nonce
   * @param {import('./handles.mjs').Handles} handles
   * @param {Record<string, (data: any) => any>} kinds how marks of other modules are read
   */
  constructor(nonce, handles, kinds) {
    this.nonce = nonce;
    this.handles = handles;
    this.kinds = kinds;
  }

  /**
   * @param {any} message
   * @returns {{json: string, tail: Uint8Array[], undo: () => void}} `undo`: it is not sent after all
   */
  encode(message) {
    /** @type {Tail} */ const tail = { parts: [], size: 0 };
    this.#given = [];
    const given = this.#given;
    const undo = () => this.handles.drop(given.map((handle) => [handle, 1]));
    try {
      return { json: JSON.stringify(this.#wire(message, tail, 0)), tail: tail.parts, undo };
    } catch (error) {
      undo();
      throw error;
    }
  }

  /** @param {any} value */
  #give(value) {
    const handle = this.handles.give(value);
    this.#given.push(handle);
    return handle;
  }

  /** @param {string} json @param {Buffer} tail */
  decode(json, tail) {
    const value = JSON.parse(json);
    return json.includes(this.nonce) ? this.#revive(value, tail) : value;
  }

  /** @param {any} value @returns {any} a value of which JSON keeps everything, or its marks */
  #wire(value, /** @type {Tail} */ tail, /** @type {number} */ depth) {
    switch (typeof value) {
      case 'object':
        if (value === null) return null;
        break;
      case 'string':
        return value.length < LONG ? value : this.#tail('text', Buffer.from(value), tail);
      case 'function':
        return this.#function(value);
      case 'undefined':
        return null;
      case 'bigint':
        throw new TypeError(
          `The BigInt ${value}n cannot be sent to the host. Send it as a string or a number.`,
        );
      case 'symbol':
        throw new TypeError(`${String(value)} cannot be sent to the host: it is a symbol.`);
      default:
        return value;
    }
    if (depth > DEEPEST) {
      throw new TypeError(
        'A value that contains itself, or is nested more than 200 deep, cannot be sent to the host.',
      );
    }
    if (Array.isArray(value)) {
      /** @type {any[] | undefined} */ let copy;
      for (let i = 0; i < value.length; i++) {
        const item = this.#wire(value[i], tail, depth + 1);
        if (item !== value[i] && copy === undefined) copy = value.slice();
        if (copy) copy[i] = item;
      }
      return copy ?? value;
    }
    const prototype = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) {
      const special = this.#special(value, tail, depth);
      if (special !== undefined) return special;
    }
    return this.#members(value, tail, depth);
  }

  /** @param {any} value */
  #members(value, /** @type {Tail} */ tail, /** @type {number} */ depth) {
    /** @type {Record<string, any> | undefined} */ let copy;
    for (const key in value) {
      if (!Object.hasOwn(value, key)) continue;
      const item = value[key];
      if (item === undefined) continue;
      const sent = this.#wire(item, tail, depth + 1);
      if (sent !== item && copy === undefined) copy = { ...value };
      if (copy) copy[key] = sent;
    }
    return copy ?? value;
  }

  /** @param {Function} value */
  #function(value) {
    const theirs = hostHandle(value);
    if (theirs !== undefined) return this.mark('own', theirs);
    return this.mark('fn', this.#give(value), value.name);
  }

  /**
   * @param {any} value
   * @returns {any} what stands for an instance of a class; `undefined`: its members
   */
  #special(value, /** @type {Tail} */ tail, /** @type {number} */ depth) {
    if (value instanceof Opaque) return this.#opaque(value);
    if (value[WIRE]) return this.#wire(value[WIRE](this), tail, depth + 1);
    if (value instanceof Uint8Array) return this.#tail('bytes', value, tail);
    if (value instanceof ArrayBuffer) return this.#tail('bytes', new Uint8Array(value), tail);
    if (ArrayBuffer.isView(value)) {
      return this.#tail(
        'bytes',
        new Uint8Array(value.buffer, value.byteOffset, value.byteLength),
        tail,
      );
    }
    if (value instanceof Date) return this.mark('date', value.toISOString());
    if (value instanceof Set) {
      return this.mark(
        'set',
        [...value].map((item) => this.#wire(item, tail, depth + 1)),
      );
    }
    if (value instanceof Error) return this.mark('error', describeError(value));
    if (value instanceof HostStream && value.untouched) return this.mark('own', value.handle);
    if (typeof value.toJSON === 'function') return this.#wire(value.toJSON(), tail, depth + 1);
    if (value[Symbol.asyncIterator]) return this.mark('iter', this.#give(serveIterator(value)));
    if (value instanceof Map || value instanceof WeakMap || value instanceof Promise) {
      throw new TypeError(
        `A ${value.constructor.name} cannot be sent to the host. ${
          value instanceof Promise ? 'Await it first.' : 'Send Object.fromEntries(map).'
        }`,
      );
    }
    return undefined;
  }

  /** @param {string} kind @param {Uint8Array} bytes */
  #tail(kind, bytes, /** @type {Tail} */ tail) {
    const at = tail.size;
    tail.parts.push(bytes);
    tail.size += bytes.length;
    return this.mark(kind, at, bytes.length);
  }

  /** @param {Opaque} opaque */
  #opaque({ value }) {
    const name = value?.constructor?.name;
    return this.mark('fn', this.#give(value), typeof name === 'string' ? name : 'object');
  }

  /** @param {string} kind @param {any[]} rest */
  mark(kind, ...rest) {
    return { [this.nonce]: [kind, ...rest] };
  }

  /** @param {any} value @param {Buffer} tail @returns {any} */
  #revive(value, tail) {
    if (value === null || typeof value !== 'object') return value;
    if (Array.isArray(value)) {
      for (let i = 0; i < value.length; i++) {
        if (value[i] !== null && typeof value[i] === 'object') {
          value[i] = this.#revive(value[i], tail);
        }
      }
      return value;
    }
    const mark = value[this.nonce];
    if (mark !== undefined) return this.#read(mark, tail);
    for (const key in value) {
      if (value[key] !== null && typeof value[key] === 'object') {
        value[key] = this.#revive(value[key], tail);
      }
    }
    return value;
  }

  /** @param {any[]} mark @param {Buffer} tail */
  #read([kind, data, more], tail) {
    switch (kind) {
      case 'fn':
        return this.handles.receive(data);
      case 'own':
        return this.handles.take(data);
      case 'bytes':
        return tail.subarray(data, data + more);
      case 'text':
        return tail.toString('utf8', data, data + more);
      case 'date':
        return new Date(data);
      case 'set':
        return new Set(this.#revive(data, tail));
      case 'error':
        return new RemoteError(data);
      case 'iter':
        return new HostStream(data, this.handles);
    }
    const read = this.kinds[kind];
    if (!read) {
      throw new TypeError(`The host sent a value of the unknown kind ${JSON.stringify(kind)}.`);
    }
    return read(this.#revive(data, tail));
  }
}

/** @typedef {{parts: Uint8Array[], size: number}} Tail */
