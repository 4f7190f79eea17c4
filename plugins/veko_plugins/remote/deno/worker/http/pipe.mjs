/**
 * What is written to a response, until the host pulls it.
 * @module
 */
import { Buffer } from 'node:buffer';

export class Pipe {
  /** @type {Uint8Array[]} */ #chunks = [];
  #size = 0;
  #ended = false;
  /** @type {(() => void) | null} */ #wake = null;
  /** @type {(() => void) | null} */ #drained = null;

  /** @param {() => void} stopped called when the reader wants no more */
  constructor(stopped) {
    this.stopped = stopped;
  }

  /**
   * @param {Uint8Array} chunk
   * @param {() => void} drained
   * @returns {boolean} whether more may be written at once
   */
  push(chunk, drained) {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    this.#wake?.();
    if (this.#size < 64 * 1024) return true;
    this.#drained = drained;
    return false;
  }

  end() {
    this.#ended = true;
    this.#wake?.();
  }

  /**
   * Not a generator: one that waits for a chunk could not be stopped.
   * @returns {AsyncIterator<Uint8Array>}
   */
  [Symbol.asyncIterator]() {
    return {
      next: () => this.#next(),
      return: () => {
        this.stopped();
        return Promise.resolve({ value: undefined, done: true });
      },
    };
  }

  /** @returns {Promise<IteratorResult<Uint8Array>>} */
  async #next() {
    while (!this.#chunks.length) {
      if (this.#ended) return { value: undefined, done: true };
      await new Promise((/** @type {(value?: any) => void} */ resolve) => (this.#wake = resolve));
      this.#wake = null;
    }
    const chunk = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
    this.#chunks = [];
    this.#size = 0;
    const drained = this.#drained;
    this.#drained = null;
    if (drained) setImmediate(drained);
    return { value: chunk, done: false };
  }
}
