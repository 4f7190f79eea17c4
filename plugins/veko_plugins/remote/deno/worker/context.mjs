/**
 * `context`, with the names of the original. What `load` registers goes live when it has returned.
 * @module
 */
import { asCommand, parameters } from './commands.mjs';
import { currentSignal } from './current.mjs';
import { asHook, asRouteHook } from './hooks.mjs';
import { describeExports, member } from './peers.mjs';
import { serveSocket } from './sockets.mjs';

/** @typedef {(...args: any[]) => any} Fn */

const LEVELS = /** @type {Record<string, string>} */ ({
  warn: 'warning',
  log: 'info',
  fatal: 'error',
  trace: 'debug',
});

/** @param {string} path `/users/:id` and `/files/*` in Veko's form @returns {string} */
export function pathOf(path) {
  return path
    .replace(
      /:(\w+)(?:\((\\d\+|\[0-9\]\+)\))?/g,
      (_, name, digits) => (digits ? `{${name}:int}` : `{${name}}`),
    )
    .replace(/\*(\w*)/g, (_, name) => `{${name || 'rest'}:path}`);
}

/** @param {any} fn @param {string} verb */
function required(fn, verb) {
  if (typeof fn !== 'function') {
    throw new TypeError(
      `context.${verb} needs a function, got ${fn === null ? 'null' : typeof fn}.`,
    );
  }
  return fn;
}

export class Context {
  #next = 1;
  /** Registrations of hooks, for removeHook. @type {[string, Fn, number][]} */ #hooks = [];
  /** @type {Set<Ticker>} */ #tickers = new Set();
  /** @type {import('./plugin.mjs').Parts} */ #parts;

  /** @param {import('./plugin.mjs').Parts} parts */
  constructor(parts) {
    this.#parts = parts;
    this.storage = parts.storage;
    /** @type {any} */ this.config = {};
    /** @type {any} */ this.app = null;
    this.name = parts.name;
    // Plugins take members apart: `const { log, hook } = context`.
    for (const name of Object.getOwnPropertyNames(Context.prototype)) {
      const value = /** @type {any} */ (this)[name];
      if (typeof value === 'function' && name !== 'constructor') {
        Object.defineProperty(this, name, { value: value.bind(this) });
      }
    }
  }

  /** @param {string} method @param {any[]} args */
  #register(method, ...args) {
    const rid = this.#next++;
    this.#parts.connection.note(method, rid, ...args);
    return rid;
  }

  /**
   * @param {string} level
   * @param {any} message
   * @param {any} [details]
   * @param {Record<string, any>} [fields]
   */
  log(level, message, details = null, fields = {}) {
    this.#parts.log(
      LEVELS[level] ?? level,
      String(message),
      details instanceof Error ? String(details.stack) : details,
      fields,
    );
  }

  /** @param {Fn} fn `(req, res, next)` @param {number} [priority] */
  addMiddleware(fn, priority = 10) {
    this.#register(
      'add_middleware',
      this.#parts.roles.middleware(required(fn, 'addMiddleware')),
      priority,
    );
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Fn[]} steps middlewares and, last, the handler
   */
  addRoute(method, path, ...steps) {
    const all = steps.flat(Infinity);
    for (const step of all) required(step, 'addRoute');
    if (!all.length) {
      throw new TypeError(
        `context.addRoute(${JSON.stringify(method)}, ${JSON.stringify(path)}) needs a handler.`,
      );
    }
    this.#register(
      'add_route',
      String(method).toUpperCase(),
      pathOf(String(path)),
      this.#parts.roles.handler(all),
      { middlewares: [] },
    );
  }

  /** @param {string} path @param {Fn} handler `(socket, req)` */
  addWebsocket(path, handler) {
    this.#register(
      'add_websocket',
      pathOf(String(path)),
      serveSocket(required(handler, 'addWebsocket')),
    );
  }

  /** @param {string} path @param {Fn} handler */
  addWebSocket(path, handler) {
    this.addWebsocket(path, handler);
  }

  /**
   * @param {string} event
   * @param {Fn} fn
   * @param {number} [priority] higher first
   * @param {{timeout?: number, observe?: boolean}} [options] `timeout` in seconds
   */
  hook(event, fn, priority = 10, options = {}) {
    required(fn, 'hook');
    const serve = event === 'route:create' ? asRouteHook(fn, this.#parts.roles) : asHook(fn);
    const rid = this.#register('hook', event, serve, { priority, ...options });
    this.#hooks.push([event, fn, rid]);
    return fn;
  }

  /** @param {string} event @param {Fn} fn */
  removeHook(event, fn) {
    const at = this.#hooks.findIndex(([name, known]) => name === event && known === fn);
    if (at < 0) return false;
    const [[, , rid]] = this.#hooks.splice(at, 1);
    this.#parts.connection.note('remove', rid);
    return true;
  }

  /** @param {string} name @param {Fn} fn @param {string} [description] */
  addCommand(name, fn, description = '') {
    this.#register(
      'add_command',
      name,
      asCommand(required(fn, 'addCommand')),
      description,
      parameters(fn),
    );
  }

  /** @param {string} name @param {any[]} args */
  runCommand(name, ...args) {
    return this.#parts.connection.call('run_command', name, args);
  }

  /** @param {string} name */
  getPlugin(name) {
    return this.#parts.peers.get(name);
  }

  listPlugins() {
    return this.#parts.peers.list();
  }

  /** @param {string} name @param {any} value data, a function, or an object with functions */
  provide(name, value) {
    this.#parts.services.set(name, value);
    const structured = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (!structured) return void this.#register('provide', name, { value });
    const { functions, constants } = describeExports(value);
    const callable = functions.map((path) => {
      const [fn, owner] = member(value, path);
      return [path, (/** @type {any[]} */ ...args) => fn.apply(owner, args)];
    });
    this.#register('provide', name, { functions: Object.fromEntries(callable), constants });
  }

  /** @param {string} name @returns {Promise<any>} the service; its functions are asynchronous */
  async use(name) {
    return this.#parts.peers.service(name, await this.#parts.connection.call('use', name));
  }

  /** @param {string} name @returns {Promise<any>} the service, as soon as somebody provides it */
  async when(name) {
    return this.#parts.peers.service(name, await this.#parts.connection.call('when', name));
  }

  /** @param {string} event others hook it as `plugin:<name>:<event>` @param {any[]} args */
  emit(event, ...args) {
    return this.#parts.connection.call('emit', event, args);
  }

  /** @param {Record<string, any>} changes @returns {Promise<any>} */
  updateConfig(changes) {
    return this.#parts.connection.call('update_config', changes);
  }

  getConfig() {
    return this.config;
  }

  /** Aborted when the host gives up the call in which this is read. */
  get signal() {
    return currentSignal();
  }

  /**
   * Runs a function beside the others; its failure is reported.
   * @param {Fn} fn
   * @param {any[]} args
   */
  spawn(fn, ...args) {
    required(fn, 'spawn');
    setImmediate(async () => {
      try {
        await fn(...args);
      } catch (error) {
        this.#parts.report(error, `spawn ${fn.name}`.trim());
      }
    });
  }

  /**
   * @param {number} seconds
   * @param {Fn} fn called again and again, never twice at once, while the plugin is active
   */
  every(seconds, fn) {
    const ticker = new Ticker(
      seconds * 1000,
      required(fn, 'every'),
      (error) => this.#parts.report(error, `every ${seconds} s ${fn.name}`.trim()),
    );
    this.#tickers.add(ticker);
    return {
      cancel: () => {
        ticker.pause();
        this.#tickers.delete(ticker);
      },
    };
  }

  /** @param {any} context @param {boolean} active */
  static activate(context, active) {
    for (const ticker of context.#tickers) active ? ticker.resume() : ticker.pause();
  }
}

class Ticker {
  /** @type {any} */ #timer = null;
  #running = false;

  /** @param {number} period in milliseconds @param {Fn} fn @param {(error: any) => void} report */
  constructor(period, fn, report) {
    this.period = period;
    this.fn = fn;
    this.report = report;
    this.resume();
  }

  resume() {
    this.#timer ??= setInterval(() => this.#tick(), this.period);
  }

  pause() {
    clearInterval(this.#timer);
    this.#timer = null;
  }

  async #tick() {
    if (this.#running) return;
    this.#running = true;
    try {
      await this.fn();
    } catch (error) {
      this.report(error);
    } finally {
      this.#running = false;
    }
  }
}
