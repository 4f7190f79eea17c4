/**
 * The host's call in which code runs, however many turns later.
 * @module
 */
import { AsyncLocalStorage } from 'node:async_hooks';

/** The host's call in which code runs: what it calls in turn names it as the parent. */
export class Call {
  /** @type {AbortController | undefined} */ #abort;
  /** Answered or given up. */ over = false;
  /** @type {(() => void)[] | null} */ #cancelled = null;

  /** @param {number} id */
  constructor(id) {
    this.id = id;
  }

  /** Aborted when the host gives the call up. Made at first use: few handlers ask for it. */
  get signal() {
    this.#abort ??= new AbortController();
    return this.#abort.signal;
  }

  /** @param {() => void} listener called when the host gives the call up */
  whenCancelled(listener) {
    (this.#cancelled ??= []).push(listener);
  }

  cancel() {
    this.over = true;
    (this.#abort ??= new AbortController()).abort();
    for (const listener of this.#cancelled ?? []) listener();
  }
}

/** @type {AsyncLocalStorage<Call>} */
export const current = new AsyncLocalStorage();

/** @returns {AbortSignal | undefined} aborted when the host gives up the call in which this runs */
export function currentSignal() {
  return current.getStore()?.signal;
}

/** @param {() => void} listener called when the host gives up the call in which this runs */
export function whenCancelled(listener) {
  current.getStore()?.whenCancelled(listener);
}
