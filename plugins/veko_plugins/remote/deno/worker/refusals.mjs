/**
 * What Deno refuses, named where it happens: a plugin that catches the error is named too.
 * @module
 */
import { denial } from './errors.mjs';

const MOST = 1000;
// What Deno says a user should do; here it is the plugin's manifest that says what is granted.
const ADVICE = /, run again with the --allow-\S+ flag$/;

/**
 * Reports each refusal once, and lets its message say which permission is missing.
 *
 * Deno makes the error and then sets its name, so a setter sees each one with its stack. Allowed
 * accesses cost nothing: Deno's own traces of permissions cost 50 µs for each of them.
 * @param {(permission: string, value: string, where: string) => void} report
 */
export function watchRefusals(report) {
  const type = /** @type {any} */ (globalThis).Deno?.errors?.NotCapable;
  if (!type) return;
  /** @type {Set<string>} */ const seen = new Set();
  Object.defineProperty(type.prototype, 'name', {
    get: () => 'NotCapable',
    /** @param {string} name */
    set(name) {
      Object.defineProperty(this, 'name', { value: name, configurable: true, writable: true });
      const denied = denial(this);
      if (!denied) return;
      const [permission, value, where] = denied;
      const text = value ? `${permission}:${value}` : permission;
      const before = this.message;
      this.message = before.replace(ADVICE, `; if it needs that, add "${text}" to its permissions`);
      this.stack = String(this.stack).replace(before, () => this.message);
      const key = `${text}\n${where}`;
      if (seen.has(key) || seen.size >= MOST) return;
      seen.add(key);
      report(permission, value, where);
    },
  });
}
