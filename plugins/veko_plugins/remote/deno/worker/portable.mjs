/**
 * Whether a value is JSON as it stands, so that nothing of it is lost on the way.
 * @module
 */

/** @param {any} value @returns {boolean} */
export function portable(value, depth = 0) {
  if (value === null) return true;
  switch (typeof value) {
    case 'object':
      break;
    case 'string':
    case 'boolean':
      return true;
    case 'number':
      return Number.isFinite(value);
    case 'undefined':
      return depth > 0;
    default:
      return false;
  }
  if (depth > 100) return false;
  if (Array.isArray(value)) return value.every((item) => portable(item, depth + 1));
  const prototype = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) {
    return typeof value.toJSON === 'function';
  }
  for (const key in value) if (!portable(value[key], depth + 1)) return false;
  return true;
}
