/**
 * A WebSocket as `ws` has it: `send`, `close`, `on('message')`, `on('close')`; or `receive()` and
 * `for await`, as Python plugins have it.
 * @module
 */
import { EventEmitter } from 'node:events';
import { Request } from './http/request.mjs';

export class Socket extends EventEmitter {
  readyState = 0;
  #reading = false;

  /** @param {any} wire */
  constructor(wire) {
    super();
    this.wire = wire;
    Object.defineProperty(this, 'wire', { enumerable: false });
    this.request = new Request({
      method: 'GET',
      scheme: 'ws',
      path: String(wire.url).split('?')[0],
      host: wire.headers?.host ?? '',
      body: null,
      ...wire,
      state: wire.state ?? {},
    });
  }

  get url() {
    return this.wire.url;
  }

  get params() {
    return this.wire.params;
  }

  get query() {
    return this.wire.query;
  }

  get headers() {
    return this.wire.headers;
  }

  get ip() {
    return this.wire.ip;
  }

  /** @param {string | null} [protocol] */
  async accept(protocol = null) {
    if (this.readyState !== 0) return;
    this.readyState = 1;
    await (protocol === null ? this.wire.accept() : this.wire.accept(protocol));
  }

  /**
   * @param {string | Uint8Array | object} data text, bytes, or data that is sent as JSON
   * @param {any} [options]
   * @param {(error?: any) => void} [done]
   */
  send(data, options, done) {
    const plain = typeof data === 'string' || data instanceof Uint8Array
      ? data
      : data instanceof ArrayBuffer
      ? new Uint8Array(data)
      : JSON.stringify(data);
    const callback = typeof options === 'function' ? options : done;
    const sent = this.wire.send(plain);
    if (callback) sent.then(() => callback(), callback);
    else sent.catch(() => {});
    return sent;
  }

  /**
   * @returns {Promise<string | Uint8Array | null>} the
   *   next message; `null` when the client has left
   */
  async receive() {
    this.#reading = true;
    const message = this.readyState === 3 ? null : await this.wire.receive();
    if (message === null) this.#closed();
    return message;
  }

  async *[Symbol.asyncIterator]() {
    for (let message = await this.receive(); message !== null; message = await this.receive()) {
      yield message;
    }
  }

  /** @param {number} [code] @param {string} [reason] */
  close(code = 1000, reason = '') {
    const closed = this.readyState === 3
      ? Promise.resolve()
      : this.wire.close(code, String(reason));
    this.#closed();
    return closed.catch(() => {});
  }

  terminate() {
    return this.close();
  }

  #closed() {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.emit('close', 1000, '');
  }

  /** Emits the messages that the handler did not fetch itself, until the client leaves. */
  async pump() {
    if (this.#reading || !(this.listenerCount('message') + this.listenerCount('close'))) return;
    for await (const message of this) this.emit('message', message, typeof message !== 'string');
  }
}

/**
 * @param {(socket: Socket, req: Request) => any} handler
 * @returns {(socket: Socket) => Promise<void>}
 */
export function serveSocket(handler) {
  return async (socket) => {
    await socket.accept();
    await handler(socket, socket.request);
    await socket.pump();
  };
}
