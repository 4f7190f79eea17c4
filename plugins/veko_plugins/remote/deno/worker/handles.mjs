/**
 * Functions and objects that travel as handles, in both directions.
 *
 * Ours stay in `#own` until the host has dropped as many as it was sent. The host's are counted
 * here; when the collector has taken one, all that arrived of it are dropped in one message.
 * @module
 */

/** @typedef {(handles: [number, number][]) => void} SendDrops */
/** @typedef {((...args: any[]) => Promise<any>) & {}} RemoteFunction */

/** Which host handle a remote function stands for. @type {WeakMap<Function, number>} */
const numbers = new WeakMap();

export class Handles {
  /** @type {Map<number, {value: any, sent: number}>} */ #own = new Map();
  /** @type {Map<any, number>} */ #known = new Map();
  /** @type {Map<number, {ref: WeakRef<Function>, times: number}>} */ #theirs = new Map();
  /** @type {[number, number][]} */ #drops = [];
  #next = 1;

  /**
   * @param {(handle: number, args: any[]) => Promise<any>} call
   * @param {SendDrops} sendDrops
   * @param {{pull: (handle: number, max: number) => Promise<any>, stop: (handle: number) => void}} streams how the host's streams are read
   */
  constructor(call, sendDrops, streams) {
    this.streams = streams;
    this.call = call;
    this.sendDrops = sendDrops;
    this.collected = new FinalizationRegistry((/** @type {number} */ handle) => {
      // The same handle may have arrived again since, as a new function: that one is alive.
      if (this.#theirs.get(handle)?.ref.deref() === undefined) this.#forget(handle);
    });
  }

  get size() {
    return this.#own.size;
  }

  /** @param {any} value @returns {number} the handle under which the host gets the value */
  give(value) {
    let handle = this.#known.get(value);
    if (handle === undefined) {
      handle = this.#next++;
      this.#known.set(value, handle);
      this.#own.set(handle, { value, sent: 0 });
    }
    /** @type {any} */ (this.#own.get(handle)).sent++;
    return handle;
  }

  /** @param {number} handle @returns {any} what was given under the handle */
  take(handle) {
    const entry = this.#own.get(handle);
    if (!entry) throw new ReferenceError(`The worker holds nothing under handle ${handle}.`);
    return entry.value;
  }

  /** @param {[number, number][]} handles what the host does not need any more */
  drop(handles) {
    for (const [handle, times] of handles) {
      const entry = this.#own.get(handle);
      if (!entry) continue;
      entry.sent -= times;
      if (entry.sent > 0) continue;
      this.#own.delete(handle);
      this.#known.delete(entry.value);
    }
  }

  /** @param {number} handle @returns {RemoteFunction} the host's function */
  receive(handle) {
    const entry = this.#theirs.get(handle);
    const known = /** @type {RemoteFunction | undefined} */ (entry?.ref.deref());
    if (entry && known) {
      entry.times++;
      return known;
    }
    const remote = (/** @type {any[]} */ ...args) => this.call(handle, args);
    numbers.set(remote, handle);
    this.#theirs.set(handle, { ref: new WeakRef(remote), times: (entry?.times ?? 0) + 1 });
    this.collected.register(remote, handle, remote);
    return remote;
  }

  /**
   * Drops a host's function that is certainly not needed any more, without waiting for the
   * collector.
   * @param {Function} remote
   */
  release(remote) {
    const handle = numbers.get(remote);
    if (handle === undefined || this.#theirs.get(handle)?.ref.deref() !== remote) return;
    this.collected.unregister(remote);
    this.#forget(handle);
  }

  /** @param {number} handle */
  #forget(handle) {
    const entry = this.#theirs.get(handle);
    if (!entry) return;
    this.#theirs.delete(handle);
    if (this.#drops.push([handle, entry.times]) > 1) return;
    setImmediate(() => {
      const drops = this.#drops;
      this.#drops = [];
      this.sendDrops(drops);
    });
  }
}

/**
 * @param {any} value
 * @returns {number | undefined} the host's handle, if the value is a function of the host's
 */
export function hostHandle(value) {
  return typeof value === 'function' ? numbers.get(value) : undefined;
}
