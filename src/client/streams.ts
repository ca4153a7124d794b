/**
 * Streams of the API: JSON lines, docker's multiplexed output (8-byte frames: stream, 0, 0, 0, big-endian length)
 * and hijacked connections.
 */
import type { Socket } from 'node:net';
import { GantryError } from '#types/errors.ts';

/** A progress or event line longer than this is not one. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;
const FRAME_HEADER_BYTES = 8;

export type OutputName = 'stdin' | 'stdout' | 'stderr';

/** A piece of a process's output. */
export interface OutputChunk {
  readonly stream: OutputName;
  readonly data: Buffer;
}

const STREAM_NAMES: readonly OutputName[] = ['stdin', 'stdout', 'stderr'];
/** Stream 3 carries errors of the daemon itself. */
const SYSTEM_ERROR_STREAM = 3;

/** JSON values separated by line ends. */
export async function* jsonLines<T>(
  source: AsyncIterable<Buffer>,
  parse: (text: string) => unknown = JSON.parse,
): AsyncGenerator<T, void, undefined> {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  for await (const chunk of source) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      const line = Buffer.concat([...pending, chunk.subarray(start, end)])
        .toString('utf8')
        .trim();
      pending = [];
      pendingBytes = 0;
      start = end + 1;
      if (line !== '') yield parse(line) as T;
    }
    if (start < chunk.length) pending.push(chunk.subarray(start));
    pendingBytes += chunk.length - start;
    if (pendingBytes > MAX_LINE_BYTES) throw new GantryError('system', 'line of a JSON stream is too long');
  }
  const rest = Buffer.concat(pending).toString('utf8').trim();
  if (rest !== '') yield parse(rest) as T;
}

/** Takes multiplexed output apart. Payload is passed on as it comes: a frame may arrive as several chunks. */
export async function* demultiplex(source: AsyncIterable<Buffer>): AsyncGenerator<OutputChunk, void, undefined> {
  let header: Buffer = Buffer.alloc(0);
  let remaining = 0;
  let stream = 0;
  const failure: Buffer[] = [];
  for await (let chunk of source) {
    while (chunk.length > 0) {
      if (remaining === 0) {
        const missing = FRAME_HEADER_BYTES - header.length;
        header = Buffer.concat([header, chunk.subarray(0, missing)]);
        chunk = chunk.subarray(missing);
        if (header.length < FRAME_HEADER_BYTES) break;
        stream = header[0] ?? 0;
        remaining = header.readUInt32BE(4);
        header = Buffer.alloc(0);
        if (stream > SYSTEM_ERROR_STREAM) throw new GantryError('system', `Unrecognized input header: ${stream}`);
        continue;
      }
      const data = chunk.subarray(0, remaining);
      chunk = chunk.subarray(data.length);
      remaining -= data.length;
      const name = STREAM_NAMES[stream];
      if (name !== undefined) yield { stream: name, data };
      else {
        failure.push(data);
        if (remaining === 0) throw new GantryError('system', `error from daemon in stream: ${Buffer.concat(failure)}`);
      }
    }
  }
  if (remaining > 0 || header.length > 0) throw new GantryError('system', 'unexpected EOF');
}

/** A hijacked connection to a process: write to `duplex`, `duplex.end()` closes the process's input only. */
export class HijackedStream implements Disposable {
  readonly duplex: Socket;
  /** Whether the daemon frames the output (processes without a terminal). */
  readonly isMultiplexed: boolean;

  constructor(duplex: Socket, isMultiplexed: boolean) {
    this.duplex = duplex;
    this.isMultiplexed = isMultiplexed;
  }

  /**
   * The output until the process ends; a terminal's whole output counts as stdout. Before API 1.42 answers do not
   * tell whether they are framed: pass what is known of the process (no terminal means framed).
   */
  async *output(isFramed: boolean = this.isMultiplexed): AsyncGenerator<OutputChunk, void, undefined> {
    if (isFramed) yield* demultiplex(this.#bytes());
    else for await (const data of this.#bytes()) yield { stream: 'stdout', data };
  }

  /** Collects the whole output. */
  async text(): Promise<{ readonly stdout: string; readonly stderr: string }> {
    return await collectOutput(this.output());
  }

  [Symbol.dispose](): void {
    this.duplex.destroy();
  }

  #bytes(): AsyncIterable<Buffer> {
    // Input may go on after the end of the output.
    return this.duplex.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
  }
}

/** Collects output by stream. */
export async function collectOutput(
  output: AsyncIterable<OutputChunk>,
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  for await (const { stream, data } of output) (stream === 'stderr' ? stderr : stdout).push(data);
  return { stdout: Buffer.concat(stdout).toString('utf8'), stderr: Buffer.concat(stderr).toString('utf8') };
}
