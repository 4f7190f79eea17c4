/**
 * Hooks as the host calls them. They answer `[value, changes]`: what the function returned, and the
 * arguments that it changed, each `null` if it did not.
 * @module
 */
import { RemoteError } from './errors.mjs';
import { changed, Request } from './http/request.mjs';
import { Snapshot } from './http/snapshot.mjs';

/** @typedef {(...args: any[]) => any} Hook */

const UNCHANGED = [null, null];

/** @param {Hook} hook @returns {Hook} */
export function asHook(hook) {
  return (...args) => {
    const result = hook(...args);
    return typeof result?.then === 'function'
      ? result.then((/** @type {any} */ value) => effect(value, args))
      : effect(result, args);
  };
}

/** @param {any} value @param {any[]} args @returns {[any, any[] | null]} */
function effect(value, args) {
  /** @type {any[] | null} */ let changes = null;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i];
    if ((arg instanceof Request && changed(arg)) || (arg instanceof Snapshot && arg.changed)) {
      (changes ??= args.map(() => null))[i] = arg;
    }
  }
  // What was given and is unchanged need not travel back.
  const same = value === args[0] &&
    ((value instanceof Snapshot && !value.changed) ||
      (value instanceof RemoteError && value.unchanged));
  return [same ? null : value, changes];
}

/**
 * `route:create` speaks of routes as `[method, path, ...middlewares, handler]`.
 * @param {Hook} hook @param {import('./http/roles.mjs').Roles} roles @returns {Hook}
 */
export function asRouteHook(hook, roles) {
  return async (method, path, handler) => {
    const given = roles.express(handler);
    const result = await hook(method, path, given);
    if (result === undefined || result === null) return UNCHANGED;
    if (!Array.isArray(result) || result.length < 3) {
      throw new TypeError(
        'A hook on route:create returns [method, path, ...middlewares, handler], or nothing.',
      );
    }
    const steps = result.slice(2);
    if (result[0] === method && result[1] === path && steps.length === 1 && steps[0] === given) {
      return UNCHANGED;
    }
    for (const step of steps) {
      if (typeof step !== 'function') {
        throw new TypeError(
          `A hook on route:create returned ${typeof step} where a middleware or handler was due.`,
        );
      }
    }
    return [[
      result[0],
      result[1],
      ...steps.slice(0, -1).map((step) => roles.middleware(step)),
      roles.handler([steps[steps.length - 1]]),
    ], null];
  };
}
