/**
 * Calls in both directions over the host's socket (descriptor 0).
 * @module
 */
import net from 'node:net';
import { Call, current } from './current.mjs';
import { describeError, RemoteError } from './errors.mjs';
import { frame, Reader, Writer } from './framing.mjs';
import { Handles } from './handles.mjs';
import { Values } from './values.mjs';

export const PROTOCOL = 1;

/** @typedef {(...args: any[]) => any} Method */

export class Connection {
  /** @type {Map<number, Call>} */ #running = new Map();
  /** @type {Map<number, {resolve: (value: any) => void, reject: (error: any) => void}>} */ #waiting =
    new Map();
  #next = 1;
  /** @type {any} */ hello = null;
  /** Bytes of JSON in a frame. */ textLimit = 2 ** 20;
  /** What this side says to the host. @type {Record<string, any>} */ mine = {};

  /**
   * @param {Record<string, Method>} methods
   * @param {Record<string, any>} kinds how marked values of other modules are read
   * @param {(error: Error | null) => void} lost
   */
  constructor(methods, kinds, lost) {
    this.methods = methods;
    this.socket = new net.Socket({ fd: 0, readable: true, writable: true });
    this.writer = new Writer(this.socket);
    this.handles = new Handles(
      (handle, args) => this.#call(handle, args),
      (drops) => this.#send(['drop', drops]),
      {
        pull: (handle, max) => this.call('@next', handle, max),
        stop: (handle) => this.note('@stop', handle),
      },
    );
    methods['@next'] = (handle, max) => this.handles.take(handle).pull(max);
    methods['@stop'] = (handle) => this.handles.take(handle).stop();
    this.values = new Values('', this.handles, kinds);
    this.reader = new Reader(16 * 2 ** 20, (json, tail) => this.#receive(json, tail));
    this.socket.on('data', (chunk) => {
      try {
        this.reader.push(chunk);
      } catch (error) {
        lost(/** @type {Error} */ (error));
      }
    });
    this.socket.on('error', (error) => lost(error));
    this.socket.on('close', () => lost(null));
  }

  /** Waits for the host's greeting. @param {Record<string, any>} mine @returns {Promise<any>} */
  open(mine) {
    this.mine = mine;
    return new Promise((resolve) => (this.opened = resolve));
  }

  /** @param {string} method @param {any[]} args @returns {Promise<any>} */
  call(method, ...args) {
    return this.#call(method, args);
  }

  /** @param {string} method @param {any[]} args */
  note(method, ...args) {
    this.#send(['note', method, args]);
  }

  /** @param {string | number} target @param {any[]} args */
  #call(target, args) {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      const parent = current.getStore();
      this.#send(['call', id, target, args, parent && !parent.over ? parent.id : 0]);
      this.#waiting.set(id, { resolve, reject });
    });
  }

  /** @param {any[]} message */
  #send(message) {
    const encoded = this.values.encode(message);
    try {
      this.writer.push(this.#bounded(frame(encoded.json, encoded.tail)));
    } catch (error) {
      encoded.undo();
      throw error;
    }
  }

  /** @param {Buffer[]} pieces @returns {Buffer[]} them, if the host takes a frame of that size */
  #bounded(pieces) {
    const text = pieces[0].length - 8;
    if (text > this.textLimit) {
      throw new RangeError(
        `${text} bytes of JSON cannot be sent to the host at once: the limit is ${this.textLimit}. Send text or bytes, or less at once.`,
      );
    }
    let size = -8;
    for (const piece of pieces) size += piece.length;
    if (size > this.reader.limit) {
      throw new RangeError(
        `A message of ${size} bytes cannot be sent to the host: the limit is ${this.reader.limit}. Send less at once, or stream it.`,
      );
    }
    return pieces;
  }

  /** @param {string} json @param {Buffer} tail */
  #receive(json, tail) {
    if (!this.hello) return this.#greet(JSON.parse(json));
    /** @type {any[]} */ let message;
    try {
      message = this.values.decode(json, tail);
    } catch (error) {
      // Only the values can be at fault: the call that brought them fails, nothing else does.
      const [kind, id] = JSON.parse(json);
      if (kind === 'call') return this.#fail(id, error);
      throw error;
    }
    switch (message[0]) {
      case 'call':
        return this.#serve(message[1], message[2], message[3]);
      case 'ok':
        return this.#settle(message[1])?.resolve(message[2]);
      case 'fail':
        return this.#settle(message[1])?.reject(new RemoteError(message[2]));
      case 'note':
        return this.#take(message[1], message[2]);
      case 'cancel':
        return this.#cancel(message[1]);
      case 'drop':
        return this.handles.drop(message[1]);
      case 'ping':
        return this.#send(['pong', message[1]]);
      case 'pong':
        return undefined;
      default:
        throw new Error(
          `The host sent a message of the unknown kind ${JSON.stringify(message[0])}.`,
        );
    }
  }

  /** @param {any[]} message */
  #greet([kind, hello]) {
    if (kind !== 'hello') throw new Error('The host must greet first.');
    this.hello = hello;
    this.reader.limit = hello.limit ?? this.reader.limit;
    this.textLimit = hello.json_limit ?? this.textLimit;
    this.mine.limit = this.reader.limit;
    this.mine.json_limit = this.reader.limit;
    this.values.nonce = hello.nonce;
    this.#send(['hello', this.mine]);
    if (hello.protocol !== PROTOCOL) {
      this.writer.flush();
      throw new Error(`The host speaks protocol ${hello.protocol}, this worker ${PROTOCOL}.`);
    }
    /** @type {any} */ (this.opened)(hello);
  }

  /** @param {number} id */
  #settle(id) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  /** @param {string | number} target */
  #method(target) {
    const method = typeof target === 'string' ? this.methods[target] : this.handles.take(target);
    if (typeof method === 'function') return method;
    throw new TypeError(
      typeof target === 'string'
        ? `The worker has no method ${target}.`
        : `What handle ${target} stands for is no function.`,
    );
  }

  /** @param {number} id @param {string | number} target @param {any[]} args */
  #serve(id, target, args) {
    const call = new Call(id);
    this.#running.set(id, call);
    let result;
    try {
      result = current.run(call, this.#method(target), ...args);
    } catch (error) {
      return this.#end(call, error, true);
    }
    if (typeof result?.then !== 'function') return this.#end(call, result, false);
    result.then(
      (/** @type {any} */ value) => this.#end(call, value, false),
      (/** @type {any} */ error) => this.#end(call, error, true),
    );
  }

  /** @param {Call} call @param {any} result @param {boolean} failed */
  #end(call, result, failed) {
    if (call.over) return;
    call.over = true;
    this.#running.delete(call.id);
    if (failed) return this.#fail(call.id, result);
    try {
      this.#send(['ok', call.id, result]);
    } catch (error) {
      this.#fail(call.id, error);
    }
  }

  /** @param {number} id @param {any} error */
  #fail(id, error) {
    this.#send(['fail', id, describeError(error)]);
  }

  /**
   * Reports an error that no call of the host's waits for.
   * @param {any} error
   * @param {string} where
   */
  report(error, where) {
    const thrown = error instanceof Error ? error : new Error(describeError(error).message);
    this.note('failed', thrown, where);
  }

  /** @param {string | number} target @param {any[]} args */
  #take(target, args) {
    const report = (/** @type {any} */ error) => this.report(error, String(target));
    try {
      this.#method(target)(...args)?.catch?.(report);
    } catch (error) {
      report(error);
    }
  }

  /** @param {number} id */
  #cancel(id) {
    const call = this.#running.get(id);
    if (!call) return;
    this.#running.delete(id);
    call.cancel();
    this.#send(['fail', id, { type: 'Cancelled', message: 'The caller gave up.' }]);
  }
}
