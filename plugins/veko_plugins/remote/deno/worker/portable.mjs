/**
 * Whether a value is JSON as it stands, so that nothing of it is lost on the way.
 * @module
 */

const DEEPEST = 100;

/**
 * @param {any} value
 * @param {any[]} [around] what it is in; what contains itself is no JSON
 * @returns {boolean}
 */
export function portable(value, around = []) {
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
      return around.length > 0;
    default:
      return false;
  }
  if (around.length > DEEPEST || around.includes(value)) return false;
  around.push(value);
  try {
    if (Array.isArray(value)) return value.every((item) => portable(item, around));
    const prototype = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) {
      return typeof value.toJSON === 'function';
    }
    for (const key in value) if (!portable(value[key], around)) return false;
    return true;
  } finally {
    around.pop();
  }
}
