/** Media types by a file's suffix. @module */

/** @type {Record<string, string>} */
const TYPES = {
  html: 'text/html',
  htm: 'text/html',
  txt: 'text/plain',
  text: 'text/plain',
  css: 'text/css',
  csv: 'text/csv',
  md: 'text/markdown',
  js: 'text/javascript',
  mjs: 'text/javascript',
  json: 'application/json',
  xml: 'application/xml',
  pdf: 'application/pdf',
  wasm: 'application/wasm',
  zip: 'application/zip',
  gz: 'application/gzip',
  bin: 'application/octet-stream',
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
  gif: 'image/gif',
  svg: 'image/svg+xml',
  webp: 'image/webp',
  avif: 'image/avif',
  ico: 'image/x-icon',
  mp3: 'audio/mpeg',
  wav: 'audio/wav',
  mp4: 'video/mp4',
  webm: 'video/webm',
  woff: 'font/woff',
  woff2: 'font/woff2',
  ttf: 'font/ttf',
  form: 'application/x-www-form-urlencoded',
  urlencoded: 'application/x-www-form-urlencoded',
};

/**
 * @param {string} name a media type, a suffix or a file's name
 * @returns {string} the type with its charset
 */
export function mediaType(name) {
  const type = name.includes('/') && !name.startsWith('/') && !name.startsWith('.')
    ? name
    : (TYPES[name.slice(name.lastIndexOf('.') + 1).toLowerCase()] ?? 'application/octet-stream');
  const textual = type.startsWith('text/') || type === 'application/json' ||
    type === 'text/javascript';
  return textual && !/charset/i.test(type) ? `${type}; charset=utf-8` : type;
}
