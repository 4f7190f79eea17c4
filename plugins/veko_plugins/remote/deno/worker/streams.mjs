/**
 * Async iterators that cross the border, pulled by the side that reads.
 * @module
 */

/** Bytes or values that the host produces. Sent back unread, it reaches the host as it was. */
export class HostStream {
  #reading = false;

  /** @param {number} handle @param {import('./handles.mjs').Handles} handles */
  constructor(handle, handles) {
    this.handle = handle;
    this.remote = handles.receive(handle);
    this.handles = handles;
  }

  get untouched() {
    return !this.#reading;
  }

  async *[Symbol.asyncIterator]() {
    this.#reading = true;
    let done = false;
    try {
      while (!done) {
        const answer = await this.handles.streams.pull(this.handle, 16);
        done = answer.done;
        yield* answer.items;
      }
    } finally {
      if (!done) this.handles.streams.stop(this.handle);
      this.handles.release(this.remote);
    }
  }
}

/**
 * @typedef {{pull: (max: number) => Promise<{items: any[], done: boolean}>, stop: () => void}} Served
 */

/**
 * One of ours, as the host pulls it: one item a call, so nothing is produced ahead of its reader.
 * @param {AsyncIterable<any>} iterable
 * @returns {Served}
 */
export function serveIterator(iterable) {
  const iterator = iterable[Symbol.asyncIterator]();
  return {
    async pull() {
      const { value, done } = await iterator.next();
      return done ? { items: [], done: true } : { items: [value], done: false };
    },
    stop() {
      iterator.return?.()?.catch(() => {});
    },
  };
}
