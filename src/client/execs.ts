/** Operations on exec instances: further processes in a running container. */
import type { ExecConfig, ExecInspectResponse, IDResponse } from '#wire/engine.ts';
import { type Connection, segment } from './connection.ts';
import type { HijackedStream } from './streams.ts';

/** Result of a command run to its end. */
export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Execs {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  create(containerId: string, config: ExecConfig, signal?: AbortSignal): Promise<IDResponse> {
    return this.#connection.json('POST', `/containers/${segment(containerId)}/exec`, { body: config, signal });
  }

  /** Starts it and takes the connection over. */
  start(
    id: string,
    options: { tty?: boolean; consoleSize?: readonly [number, number]; signal?: AbortSignal } = {},
  ): Promise<HijackedStream> {
    const body = { Detach: false, Tty: options.tty ?? false, ConsoleSize: options.consoleSize };
    return this.#connection.hijack(`/exec/${segment(id)}/start`, {
      body,
      headers: { 'Content-Type': 'application/json' },
      signal: options.signal,
    });
  }

  startDetached(id: string, signal?: AbortSignal): Promise<void> {
    return this.#connection.done('POST', `/exec/${segment(id)}/start`, { body: { Detach: true }, signal });
  }

  inspect(id: string, signal?: AbortSignal): Promise<ExecInspectResponse> {
    return this.#connection.json('GET', `/exec/${segment(id)}/json`, { signal });
  }

  resize(id: string, height: number, width: number): Promise<void> {
    return this.#connection.done('POST', `/exec/${segment(id)}/resize`, { query: { h: height, w: width } });
  }

  /** Runs a command to its end and collects its output. */
  async run(
    containerId: string,
    command: readonly string[],
    options: Omit<ExecConfig, 'Cmd'> & { signal?: AbortSignal } = {},
  ): Promise<ExecResult> {
    const { signal, ...config } = options;
    const { Id } = await this.create(
      containerId,
      { AttachStdout: true, AttachStderr: true, ...config, Cmd: [...command] },
      signal,
    );
    using stream = await this.start(Id, signal === undefined ? {} : { signal });
    const output = await stream.text();
    const { ExitCode } = await this.inspect(Id, signal);
    return { exitCode: ExitCode ?? 0, ...output };
  }
}
