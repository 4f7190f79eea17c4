/**
 * Frames on the socket: `u32 size, u32 json size, JSON, binary tail`, big endian.
 *
 * Frames written in one turn leave in one write: 32 answers cost one system call, not 32.
 * @module
 */
import { Buffer } from 'node:buffer';

/** Cuts a stream of chunks into frames, copying only frames that lie in several chunks. */
export class Reader {
  /** @type {Buffer[]} */ #chunks = [];
  #size = 0;
  #wanted = 4;

  /**
   * @param {number} limit bytes that the JSON and the tail of a frame may have
   * @param {(json: string, tail: Buffer) => void} frame
   */
  constructor(limit, frame) {
    this.limit = limit;
    this.frame = frame;
  }

  /** @param {Buffer} chunk bytes that stay as they are: frames' tails point into them */
  push(chunk) {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    // Joining waits for the whole frame, so a large one is copied once, not once per chunk.
    if (this.#size < this.#wanted) return;
    const data = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks, this.#size);
    let at = 0;
    this.#wanted = 4;
    while (data.length - at >= 4) {
      const total = data.readUInt32BE(at);
      if (total < 4 || total > this.limit + 4) {
        throw new Error(
          `The host sent a frame of ${total} bytes, at most ${this.limit} are allowed.`,
        );
      }
      if (data.length - at < 4 + total) {
        this.#wanted = 4 + total;
        break;
      }
      const json = data.readUInt32BE(at + 4);
      const end = at + 4 + total;
      if (json > total - 4) {
        throw new Error('The host sent a frame whose JSON is longer than the frame.');
      }
      const body = at + 8;
      at = end;
      this.frame(data.toString('utf8', body, body + json), data.subarray(body + json, end));
    }
    this.#chunks = at < data.length ? [data.subarray(at)] : [];
    this.#size = data.length - at;
  }
}

/**
 * @param {string} json
 * @param {Uint8Array[]} tail
 * @returns {Buffer[]} the frame's pieces; the tail is not copied
 */
export function frame(json, tail) {
  const size = Buffer.byteLength(json);
  let bytes = 0;
  for (const part of tail) bytes += part.length;
  const head = Buffer.allocUnsafe(8 + size);
  head.writeUInt32BE(4 + size + bytes, 0);
  head.writeUInt32BE(size, 4);
  head.write(json, 8, size, 'utf8');
  return bytes
    ? [head, ...tail.map((part) => Buffer.from(part.buffer, part.byteOffset, part.length))]
    : [head];
}

/** Collects frames and writes those of one turn together. */
export class Writer {
  /** @type {Buffer[]} */ #pieces = [];
  #size = 0;
  #scheduled = false;
  #flush = () => this.flush();

  /** @param {import('node:net').Socket} socket */
  constructor(socket) {
    this.socket = socket;
  }

  /** Bytes that the host has not read yet. */
  get waiting() {
    return this.#size + this.socket.writableLength;
  }

  /** @param {Buffer[]} pieces */
  push(pieces) {
    for (const piece of pieces) {
      this.#pieces.push(piece);
      this.#size += piece.length;
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Not a microtask: answers of handlers that await once or twice belong to the same write.
    setImmediate(this.#flush);
  }

  /** Writes at once what fits into the socket, also if the process ends right after it. */
  flush() {
    this.#scheduled = false;
    const pieces = this.#pieces;
    if (!pieces.length) return;
    this.#pieces = [];
    this.#size = 0;
    this.socket.write(pieces.length === 1 ? pieces[0] : Buffer.concat(pieces));
  }
}
