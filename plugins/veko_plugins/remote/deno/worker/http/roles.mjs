/**
 * Express-like functions as the host calls them: a handler answers, a middleware answers or goes
 * on.
 *
 * `[status, headers, body, state]` is an answer, `['next', {headers, state, finish}]` continues
 * without a second round trip. Only a middleware that has replaced a method of `res` waits for what
 * lies behind it, because it wants to see the data.
 * @module
 */
import { Buffer } from 'node:buffer';
import { whenCancelled } from '../current.mjs';
import { hostHandle } from '../handles.mjs';
import { ClientError, parseBody, parseBodyAhead } from './body.mjs';
import { run } from './chain.mjs';
import { stateOf } from './request.mjs';
import { Response } from './response.mjs';

/** @typedef {(...args: any[]) => any} Step */
/** @typedef {import('./request.mjs').Request} Request */

const REPLACEABLE = ['json', 'send', 'end', 'write', 'writeHead', 'setHeader'];

export class Roles {
  /** The plugin's function by the one that the host calls. @type {WeakMap<Function, Step>} */ #originals =
    new WeakMap();
  /** @type {WeakMap<Step, Step>} */ #handlers = new WeakMap();
  /** @type {WeakMap<Step, Step>} */ #middlewares = new WeakMap();

  /** @param {import('../connection.mjs').Connection} connection */
  constructor(connection) {
    this.connection = connection;
  }

  /**
   * @param {Step[]} steps middlewares and a handler
   * @returns {Step} what answers the host's requests
   */
  handler(steps) {
    const single = steps.length === 1
      ? steps[0]
      : (/** @type {any} */ req, /** @type {any} */ res, /** @type {any} */ next) =>
        run(steps, req, res, next);
    const known = this.#handlers.get(single);
    if (known) return known;
    const serve = (/** @type {Request} */ req) =>
      new Promise((resolve, reject) => {
        const res = new Response(req, (body) =>
          resolve([res.statusCode, res.headerPairs(), body, stateOf(req)]));
        const start = () =>
          run(steps, req, res, (error) => {
            if (res.headersSent && error) {
              queueMicrotask(() => {
                throw error;
              });
            } else {reject(
                error ?? new ClientError(404, `No handler answered ${req.method} ${req.path}.`),
              );}
          });
        req.res = res;
        whenCancelled(() =>
          res.abandon()
        );
        const waiting = parseBody(req);
        if (waiting) waiting.then(start, reject);
        else start();
      });
    this.#handlers.set(single, serve);
    this.#originals.set(serve, single);
    return serve;
  }

  /** @param {Step} step @returns {Step} what the host calls with a request and `next` */
  middleware(step) {
    const known = this.#middlewares.get(step);
    if (known) return known;
    const serve = (/** @type {Request} */ req, /** @type {Step} */ goOn) =>
      new Promise((resolve, reject) => {
        const { handles } = this.connection;
        const res = new Response(req, (body) => {
          handles.release(goOn);
          resolve([res.statusCode, res.headerPairs(), body, stateOf(req)]);
        });
        req.res = res;
        whenCancelled(() => res.abandon());
        parseBodyAhead(req);
        run([step], req, res, (error) => {
          if (error) return reject(error);
          // After the function's own statements: they may still replace methods or add listeners.
          queueMicrotask(() => {
            if (res.headersSent) return;
            if (REPLACEABLE.some((name) => Object.hasOwn(res, name))) {
              return this.#behind(req, res, goOn).catch(reject);
            }
            handles.release(goOn);
            resolve(['next', {
              headers: res.headerPairs(),
              state: stateOf(req),
              finish: finisher(res),
            }]);
          });
        });
      });
    this.#middlewares.set(step, serve);
    this.#originals.set(serve, step);
    return serve;
  }

  /**
   * @param {any} fn what the host sent as a handler
   * @returns {Step} it, as a function of Express
   */
  express(fn) {
    const original = this.#originals.get(fn);
    if (original) return original;
    if (hostHandle(fn) === undefined) return fn;
    const step = async (/** @type {Request} */ req, /** @type {Response} */ res) =>
      replay(res, answerOf(await fn(req)));
    this.#handlers.set(step, fn);
    return step;
  }

  /**
   * Calls what lies behind, and gives its answer to the methods that the middleware replaced.
   * @param {Request} req
   * @param {Response} res
   * @param {Step} goOn
   */
  async #behind(req, res, goOn) {
    const answer = answerOf(await goOn(stateOf(req)));
    replay(res, answer);
  }
}

/** @param {Response} res @returns {Step | null} called by the host when the response was sent */
function finisher(res) {
  if (!res.listenerCount('finish') && !res.listenerCount('close')) return null;
  return (response) => {
    const { status } = answerOf(response);
    res.statusCode = status;
    res.headersSent = res.writableEnded = true;
    res.finish();
  };
}

/**
 * @param {any} answer a response value, or a handler's answer
 * @returns {{status: number, headers: [string, string][], body: any}}
 */
function answerOf(answer) {
  if (Array.isArray(answer)) return { status: answer[0], headers: answer[1], body: answer[2] };
  return {
    status: answer.statusCode ?? answer.status,
    headers: answer.pairs ?? answer.headers,
    body: answer.body,
  };
}

/**
 * @param {Response} res
 * @param {{status: number, headers: [string, string][], body: any}} answer
 */
function replay(res, { status, headers, body }) {
  res.statusCode = status;
  for (const [name, value] of headers) {
    if (name.toLowerCase() === 'set-cookie') res.append(name, value);
    else if (name.toLowerCase() !== 'content-length') res.setHeader(name, value);
  }
  const replaced = (/** @type {string} */ name) => Object.hasOwn(res, name);
  const whole = body === null || body === undefined || typeof body === 'string' ||
    body instanceof Uint8Array;
  if (!whole) return replaced('write') || replaced('end') ? void pour(body, res) : res.pass(body);
  const text = () => (typeof body === 'string' ? body : body ? Buffer.from(body).toString() : '');
  if (
    replaced('json') &&
    /^application\/(?:[\w.-]+\+)?json/i.test(String(res.getHeader('content-type') ?? ''))
  ) return replayJSON(res, text(), body);
  if (replaced('send')) {
    return res.send(
      /^(?:text\/|application\/(?:[\w.-]+\+)?json)/i.test(
          String(res.getHeader('content-type') ?? 'text/'),
        )
        ? text()
        : (body ?? ''),
    );
  }
  if (replaced('end') || replaced('write')) return res.end(body ?? '');
  res.pass(body ?? null);
}

/**
 * Numbers that JavaScript cannot hold would change on the way: if the middleware hands on what it
 * was given, the bytes stay those that came.
 * @param {Response} res @param {string} text @param {string | Uint8Array} body
 */
function replayJSON(res, text, body) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    return res.pass(body);
  }
  const same = JSON.stringify(data);
  const end = res.end;
  res.end = function (chunk, ...rest) {
    res.end = end;
    return end.call(this, chunk === same ? body : chunk, ...rest);
  };
  res.json(data);
}

/** @param {AsyncIterable<Uint8Array>} body @param {Response} res */
async function pour(body, res) {
  for await (const chunk of body) res.write(chunk);
  res.end();
}
