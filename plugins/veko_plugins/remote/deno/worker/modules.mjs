/**
 * Finds and loads a plugin's files: CommonJS and ES modules, JavaScript and TypeScript.
 *
 * Everything is loaded by `require`, which takes both kinds of modules and, unlike `import`, also
 * `export = {…}`; only modules that await at their top level are imported.
 * @module
 */
import fs from 'node:fs';
import Module, { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { remember } from './sourcemaps.mjs';

const SUFFIXES = ['.ts', '.mts', '.cts', '.js', '.mjs', '.cjs'];

/** @typedef {{entry: string, manifest: Record<string, any>}} Located */

/** @param {string} file a plugin's file or folder @returns {Located} */
export function locate(file) {
  if (!fs.statSync(file).isDirectory()) {
    return { entry: file, manifest: {} };
  }
  const manifest = readManifest(path.join(file, 'package.json'));
  const candidates = [manifest.main, ...SUFFIXES.map((suffix) => `index${suffix}`)].filter((name) =>
    typeof name === 'string'
  );
  for (const name of candidates) {
    const entry = path.join(file, name);
    if (fs.existsSync(entry) && fs.statSync(entry).isFile()) {
      return { entry, manifest };
    }
  }
  throw new Error(
    `The plugin's folder ${file} has none of ${
      candidates.join(', ')
    }. Add index.ts, or name the file in package.json's "main".`,
  );
}

/** @param {string} file @returns {Record<string, any>} */
function readManifest(file) {
  if (!fs.existsSync(file)) return {};
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (error) {
    throw new Error(`${file} is no JSON: ${/** @type {Error} */ (error).message}`);
  }
}

/** The file that `require` could not parse last. */
let broken = '';

/** @param {string} entry @returns {Promise<any>} what the module exports as a plugin */
export async function load(entry) {
  const require = createRequire(pathToFileURL(entry));
  let exported;
  try {
    exported = require(entry);
  } catch (error) {
    if (!awaitsAtTop(error)) throw await located(error);
    exported = await import(pathToFileURL(entry).href);
  }
  return exported?.default && (exported.__esModule || isNamespace(exported)) &&
      typeof exported.load !== 'function'
    ? exported.default
    : exported;
}

/** @param {any} error */
function awaitsAtTop(error) {
  return error?.code === 'ERR_REQUIRE_ASYNC_MODULE' || /top-level await/.test(error?.message ?? '');
}

/**
 * A syntax error in CommonJS has no position. The parser for modules finds it in the same text.
 * @param {any} error
 */
async function located(error) {
  if (error?.name !== 'SyntaxError' || !broken || String(error.stack).includes(`${broken}:`)) {
    return error;
  }
  try {
    await import(pathToFileURL(broken).href);
  } catch (found) {
    const at = new RegExp(`${RegExp.escape?.(broken) ?? broken}:\\d+:\\d+`).exec(
      String(/** @type {Error} */ (found).stack),
    );
    if (at) error.stack = `${error.name}: ${error.message}\n    at ${at[0]}`;
  }
  return error;
}

/** @param {any} value */
function isNamespace(value) {
  return value?.[Symbol.toStringTag] === 'Module';
}

/**
 * Asks the resolver, which sees `node_modules` that the plugin itself may not look for.
 * @param {string} name an npm package
 * @param {string} entry the file that would require it
 * @returns {string | null} the version that it would get
 */
export function installedVersion(name, entry) {
  const require = createRequire(pathToFileURL(entry));
  for (const file of [`${name}/package.json`, name]) {
    try {
      const found = require.resolve(file);
      const folder = `${path.sep}node_modules${path.sep}${
        name.replaceAll('/', path.sep)
      }${path.sep}`;
      const at = found.lastIndexOf(folder);
      if (at < 0) return null;
      const manifest = fs.readFileSync(found.slice(0, at + folder.length) + 'package.json', 'utf8');
      return String(JSON.parse(manifest).version ?? '');
    } catch {
      // A package may keep its package.json to itself, and then shows its main file.
    }
  }
  return null;
}

/**
 * Lets `require` find TypeScript without its suffix, keep maps, and take `import` beside `export
 * =`.
 */
export function prepareRequire() {
  const loader = /** @type {any} */ (Module);
  loader._extensions['.ts'] ??= loader._extensions['.js'];
  loader._extensions['.cts'] ??= loader._extensions['.js'];
  loader._extensions['.mts'] ??= loader._extensions['.mjs'] ?? loader._extensions['.js'];
  if (!('Deno' in globalThis)) findSuffixes(loader);
  const compile = loader.prototype._compile;
  loader.prototype._compile = function (
    /** @type {string} */ text,
    /** @type {string} */ file,
    /** @type {any[]} */ ...rest
  ) {
    const code = /\.[cm]?ts$/.test(file) ? repaired(text) : text;
    if (code !== text || file.endsWith('ts')) remember(file, code);
    try {
      return compile.call(this, code, file, ...rest);
    } catch (error) {
      if (/** @type {any} */ (error)?.name === 'SyntaxError' && !broken) broken = file;
      throw error;
    }
  };
}

/** What Deno does by a flag: `import './helper'` finds helper.ts. @param {any} loader */
function findSuffixes(loader) {
  loader.registerHooks?.({
    /**
     * @param {string} name
     * @param {any} context
     * @param {(name: string, context: any) => any} next
     */
    resolve(name, context, next) {
      try {
        return next(name, context);
      } catch (error) {
        if (!/^\.\.?\//.test(name) || !context.parentURL?.startsWith('file:')) throw error;
        const found = [...SUFFIXES, ...SUFFIXES.map((suffix) => `/index${suffix}`)].find((suffix) =>
          fs.existsSync(new URL(name + suffix, context.parentURL))
        );
        if (!found) throw error;
        return next(name + found, context);
      }
    },
  });
}

/**
 * @param {string} text compiled TypeScript
 * @returns {string} the same lines, without what the runtime's compiler leaves undone
 */
function repaired(text) {
  const code = /^export = /m.test(text) && /^import /m.test(text) ? toCommonJS(text) : text;
  return code.includes('= _apply_decs_') ? nameDecorated(code) : code;
}

/**
 * Beside `export =` the compiler renames a decorated class `A` to `A1` and leaves what refers to
 * `A` alone (Deno 2.9).
 * @param {string} text
 */
function nameDecorated(text) {
  return [...text.matchAll(/\bc: \[_(\w+), (_initClass\w*)\]/g)].reduce((code, [, name, init]) => {
    if (new RegExp(`\\bclass ${name}\\b`).test(code)) return code;
    return code.replace(`let _${name};`, `let _${name}, ${name};`).replace(
      new RegExp(`^(\\s*)${init}\\(\\);`, 'm'),
      `$1${name} = _${name}; ${init}();`,
    );
  }, text);
}

/**
 * `import` statements beside `export =`, as TypeScript's CommonJS output has them. The compiler has
 * left one statement a line (or more lines, kept), so the lines of the map stay right.
 * @param {string} text compiled code
 */
function toCommonJS(text) {
  return text
    .replace(/^export = /gm, 'module.exports = ')
    .replace(/^import type .*$/gm, '')
    .replace(
      /^import (?:([\w$]+)\s*,?\s*)?(?:\* as ([\w$]+)|\{([^}]*)\})?\s*from\s*(['"][^'"]+['"]);?$/gm,
      (_, main, all, names, source) => {
        const parts = [];
        const required = `require(${source})`;
        if (main) parts.push(`${main} = ((m) => m && m.__esModule ? m.default : m)(${required})`);
        if (all) parts.push(`${all} = ${required}`);
        if (names !== undefined) parts.push(`{${names.replace(/\bas\b/g, ':')}} = ${required}`);
        return `const ${parts.join(', ')};`;
      },
    )
    .replace(/^import (['"][^'"]+['"]);?$/gm, 'require($1);');
}
