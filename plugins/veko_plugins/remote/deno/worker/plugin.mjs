/**
 * The plugin that this worker runs: what it is, and its life cycle.
 * @module
 */
import process from 'node:process';
import { Context } from './context.mjs';
import { Request } from './http/request.mjs';
import { Roles } from './http/roles.mjs';
import { installedVersion, load, locate } from './modules.mjs';
import { describeExports, member, Peers } from './peers.mjs';
import { portable } from './portable.mjs';
import { Storage } from './storage.mjs';

/**
 * @typedef {object} Parts what the context is made of
 * @property {string} name
 * @property {import('./connection.mjs').Connection} connection
 * @property {import('./output.mjs').Log} log
 * @property {(error: any, where: string) => void} report a failure of what nobody waits for
 * @property {Storage} storage
 * @property {Roles} roles
 * @property {Peers} peers
 * @property {Map<string, any>} services what this plugin provides
 */

const FIELDS = [
  'name',
  'version',
  'description',
  'author',
  'license',
  'homepage',
  'repository',
  'dependencies',
  'defaultConfig',
  'configSchema',
  'hooks',
  'permissions',
  'type',
  'priority',
  'engines',
  'reload',
  'required',
  'isolation',
  'onCrash',
  'default_config',
  'config_schema',
  'on_crash',
  'probation',
];
const STEPS = ['load', 'unload', 'activate', 'deactivate'];
const STATE = {
  export_state: ['exportState', 'export_state'],
  import_state: ['importState', 'import_state'],
};
const MANIFEST = ['name', 'version', 'description', 'license', 'homepage', 'engines'];

export class Plugin {
  /** @type {any} */ #module = null;
  /** @type {any} */ #app = null;

  /**
   * @param {import('./connection.mjs').Connection} connection
   * @param {any} hello
   * @param {import('./output.mjs').Log} log
   */
  constructor(connection, hello, log) {
    this.hello = hello;
    /** @type {Parts} */ this.parts = {
      name: hello.plugin.name,
      connection,
      log,
      report: (error, where) => connection.report(error, where),
      storage: new Storage(connection, log),
      roles: new Roles(connection),
      peers: new Peers(connection),
      services: new Map(),
    };
    this.context = new Context(this.parts);
    // The original's `unload(app, config)` uses `context` without having been given one.
    Object.defineProperty(globalThis, 'context', {
      value: this.context,
      writable: true,
      configurable: true,
    });
  }

  /** @returns {Record<string, (...args: any[]) => any>} what the host may call */
  methods() {
    const { storage, peers } = this.parts;
    return {
      describe: (setup) => this.describe(setup),
      load: (setup) => this.load(setup),
      unload: () => this.#step('unload'),
      activate: () => {
        Context.activate(this.context, true);
        return this.#step('activate');
      },
      deactivate: async () => {
        await this.#step('deactivate');
        Context.activate(this.context, false);
      },
      export_state: () => this.#stateMethod('export_state')?.(),
      import_state: (value, version) => this.#stateMethod('import_state')?.(value, version),
      plugin_call: (path, args) =>
        this.#call(this.#module, path, args, `The plugin ${this.parts.name}`),
      service_call: (name, path, args) =>
        this.#call(this.parts.services.get(name), path, args, `The service ${name}`),
      storage_changed: (changes, deleted) => storage.changed(changes, deleted),
      plugins: (infos, exports) => peers.set(infos, exports),
      config: (config) => void (this.context.config = config),
    };
  }

  /** @param {any} [setup] */
  async describe(setup) {
    const { entry, manifest } = locate(setup?.path ?? this.hello.plugin.path);
    this.#module = await load(entry);
    const module = this.#module;
    if (
      module === null || (typeof module !== 'object' && typeof module !== 'function') ||
      typeof module.load !== 'function'
    ) {
      throw new TypeError(
        `${entry} exports no plugin: it needs a function load(app, config, context). Write module.exports = { name, version, load }, or export default.`,
      );
    }
    /** @type {Record<string, any>} */ const fields = {};
    for (const name of MANIFEST) if (manifest[name] !== undefined) fields[name] = manifest[name];
    if (typeof manifest.author === 'string') fields.author = manifest.author;
    Object.assign(fields, manifest.veko);
    for (const name of FIELDS) {
      const value = module[name];
      if (value === undefined || typeof value === 'function') continue;
      if (portable(value)) fields[name] = value;
      else {
        throw new TypeError(
          `${entry}: ${name} is no plain data. Write it with objects, arrays, texts and numbers.`,
        );
      }
    }
    if (fields.version === undefined) {
      // Some of the original's plugins have none.
      fields.version = '0.0.0';
      this.parts.log(
        'warning',
        `${entry} names no version; it counts as 0.0.0. Add version: '1.0.0' to what it exports.`,
      );
    }
    const { functions, constants } = describeExports(module);
    const steps = [
      ...STEPS.filter((name) => typeof module[name] === 'function'),
      ...Object.keys(STATE).filter((name) =>
        this.#stateMethod(/** @type {keyof typeof STATE} */ (name))
      ),
    ];
    return {
      fields,
      steps,
      functions: functions.filter((name) =>
        !STEPS.includes(name) && !Object.values(STATE).flat().includes(name)
      ),
      constants: Object.fromEntries(
        Object.entries(constants).filter(([name]) =>
          !FIELDS.includes(name) && name !== 'peerDependencies'
        ),
      ),
      peers: peersOf(module.peerDependencies ?? manifest.peerDependencies, entry),
      node: process.versions.node,
    };
  }

  /** @param {any} setup */
  async load(setup) {
    const { storage, peers } = this.parts;
    storage.open(setup.storage);
    peers.set(setup.plugins, setup.exports);
    this.context.config = setup.config;
    this.#app = this.context.app = application(setup.app, this.context);
    Object.defineProperty(Request.prototype, 'app', { value: this.#app, configurable: true });
    await this.#module.load(this.#app, setup.config, this.context);
  }

  /** @param {string} name */
  async #step(name) {
    if (typeof this.#module?.[name] === 'function') {
      await this.#module[name](this.#app, this.context.config, this.context);
    }
  }

  /** @param {keyof typeof STATE} name */
  #stateMethod(name) {
    const found = STATE[name].find((known) => typeof this.#module?.[known] === 'function');
    return found && this.#module[found].bind(this.#module);
  }

  /** @param {any} target @param {string} path @param {any[]} args @param {string} owner */
  #call(target, path, args, owner) {
    const [fn, self] = path === '' ? [target, undefined] : member(target, path);
    if (typeof fn !== 'function') throw new TypeError(`${owner} has no function ${path}.`);
    return fn.apply(self, args);
  }
}

/**
 * @param {any} peers names, `name@range`, or ranges by name
 * @param {string} entry
 * @returns {Record<string, [string | null, string | null]>} the
 *   range and the installed version of each
 */
function peersOf(peers, entry) {
  const wanted = Array.isArray(peers)
    ? peers.map((peer) => /^(@?[^@]+)(?:@(.+))?$/.exec(String(peer)) ?? ['', String(peer)]).map((
      [, name, range],
    ) => [name, range ?? null])
    : Object.entries(peers ?? {});
  return Object.fromEntries(
    wanted.map(([name, range]) => [name, [range, installedVersion(name, entry)]]),
  );
}

/** `app`, with Express's verbs. @param {any} app @param {Context} context @returns {any} */
function application(app, context) {
  const facade = {
    name: app?.name,
    devMode: app?.dev_mode ?? false,
    directory: app?.directory,
    use: (/** @type {any[]} */ ...fns) => fns.flat().forEach((fn) => context.addMiddleware(fn)),
  };
  // Express's `app.get('setting')` shares its name with the verb; there are no settings.
  const get = (/** @type {string} */ path, /** @type {any[]} */ ...steps) =>
    steps.length ? context.addRoute('GET', path, ...steps) : undefined;
  Object.assign(facade, { get, enabled: () => false, locals: {} });
  for (const verb of ['post', 'put', 'patch', 'delete', 'options', 'head']) {
    /** @type {any} */ (facade)[verb] = (
      /** @type {string} */ path,
      /** @type {any[]} */ ...steps
    ) => context.addRoute(verb.toUpperCase(), path, ...steps);
  }
  return facade;
}
