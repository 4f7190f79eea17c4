/**
 * How the host's marked values of HTTP and of plugins become objects.
 * @module
 */
import { Request } from './http/request.mjs';
import { Snapshot } from './http/snapshot.mjs';
import { Socket } from './sockets.mjs';

/** @type {Record<string, (data: any) => any>} */
export const KINDS = {
  request: (data) => {
    for (const name in data.headers) {
      if (Array.isArray(data.headers[name])) {
        data.headers[name] = data.headers[name].join(name === 'cookie' ? '; ' : ', ');
      }
    }
    return new Request(data);
  },
  response: (data) => new Snapshot(data),
  route: (data) => Object.freeze(data),
  plugin: (data) => data,
  socket: (data) => new Socket(data),
};
