/**
 * Cookies, both ways (RFC 6265).
 * @module
 */

/** @param {string | undefined} header @returns {Record<string, string>} */
export function parseCookies(header) {
  /** @type {Record<string, string>} */ const cookies = Object.create(null);
  for (const part of header?.split(';') ?? []) {
    const at = part.indexOf('=');
    if (at < 0) continue;
    const name = part.slice(0, at).trim();
    const value = part.slice(at + 1).trim().replace(/^"(.*)"$/, '$1');
    if (!name || name in cookies) continue;
    try {
      cookies[name] = value.includes('%') ? decodeURIComponent(value) : value;
    } catch {
      cookies[name] = value;
    }
  }
  return cookies;
}

/**
 * @param {string} name
 * @param {any} value text, or data that is written as JSON (`j:…`)
 * @param {{maxAge?: number, expires?: Date, path?: string, domain?: string, secure?: boolean, httpOnly?: boolean, sameSite?: boolean | string, partitioned?: boolean, encode?: (value: string) => string}} options `maxAge` in milliseconds, as Express has it
 */
export function serializeCookie(name, value, options = {}) {
  if (!/^[\w!#$%&'*.^`|~+-]+$/.test(name)) {
    throw new TypeError(`${JSON.stringify(name)} is no name for a cookie.`);
  }
  const text = typeof value === 'object' && value !== null
    ? `j:${JSON.stringify(value)}`
    : String(value);
  const parts = [`${name}=${(options.encode ?? encodeURIComponent)(text)}`];
  const expires = options.expires ??
    (options.maxAge === undefined ? undefined : new Date(Date.now() + options.maxAge));
  if (options.maxAge !== undefined) parts.push(`Max-Age=${Math.floor(options.maxAge / 1000)}`);
  if (options.domain) parts.push(`Domain=${plain(options.domain)}`);
  parts.push(`Path=${plain(options.path ?? '/')}`);
  if (expires) parts.push(`Expires=${expires.toUTCString()}`);
  if (options.httpOnly) parts.push('HttpOnly');
  if (options.secure) parts.push('Secure');
  if (options.partitioned) parts.push('Partitioned');
  if (options.sameSite) {
    const site = options.sameSite === true ? 'Strict' : String(options.sameSite);
    parts.push(`SameSite=${site[0].toUpperCase()}${site.slice(1).toLowerCase()}`);
  }
  return parts.join('; ');
}

/** @param {string} value */
function plain(value) {
  // deno-lint-ignore no-control-regex
  if (/[;\u0000-\u001f\u007f]/.test(value)) {
    throw new TypeError(`${JSON.stringify(value)} cannot stand in a cookie.`);
  }
  return value;
}
