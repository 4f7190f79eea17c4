/**
 * Runs Express-like functions one after the other: `(req, res, next)`, and for errors
 * `(error, req, res, next)`.
 * @module
 */

/** @typedef {(...args: any[]) => any} Step */

/**
 * @param {readonly Step[]} steps
 * @param {any} req
 * @param {any} res
 * @param {(error?: any) => void} done called when the last step has called `next`, or one has failed
 */
export function run(steps, req, res, done) {
  let at = 0;
  /** @param {any} [error] */
  const next = (error) => {
    if (error === 'route' || error === 'router') return done();
    while (at < steps.length) {
      const step = steps[at++];
      const handlesErrors = step.length === 4;
      if (handlesErrors !== Boolean(error)) continue;
      let called = false;
      // A step that calls next twice would run the rest twice; the second call does nothing.
      const once = (/** @type {any} */ problem) => {
        if (called) return;
        called = true;
        next(problem);
      };
      // What fails after the request went on can change nothing in the answer, and is reported.
      const failed = (/** @type {any} */ problem) => {
        const thrown = problem ?? new Error('A handler failed without an error.');
        if (called) {
          queueMicrotask(() => {
            throw thrown;
          });
        } else once(thrown);
      };
      try {
        const result = handlesErrors ? step(error, req, res, once) : step(req, res, once);
        if (typeof result?.then === 'function') result.then(undefined, failed);
      } catch (problem) {
        failed(problem);
      }
      return;
    }
    done(error);
  };
  next();
}
