/** Containers for the RUN steps of a build: ordinary ones, attached for their output, removed afterwards. */
import { Duplex } from 'node:stream';
import type { ContainerCreateRequest } from '#wire/engine.ts';
import { createContainer } from '../containers/create.ts';
import { killContainer } from '../containers/kill.ts';
import { streamsOf } from '../containers/output.ts';
import { removeContainer } from '../containers/remove.ts';
import { startContainer } from '../containers/start.ts';
import { waitForCondition } from '../containers/wait.ts';
import type { Services } from '../services.ts';
import type { BuildContainer, CreateBuildContainer, RunOutput } from './build-container.ts';

const NEWEST = { atLeast: () => true };

/** Makes build containers with the daemon's engine. */
export function buildContainers(services: Services): CreateBuildContainer {
  return async ({ image, config, resources }) => {
    const { id } = await createContainer(services, {
      name: '',
      platform: '',
      version: NEWEST,
      request: {
        ...config,
        Image: image.id,
        AttachStdout: true,
        AttachStderr: true,
        Healthcheck: { Test: ['NONE'] },
        HostConfig: { ...resources, LogConfig: { Type: 'none', Config: {} } },
      } as unknown as ContainerCreateRequest,
    });
    return new EngineBuildContainer(services, id);
  };
}

class EngineBuildContainer implements BuildContainer {
  readonly id: string;
  readonly #services: Services;

  constructor(services: Services, id: string) {
    this.#services = services;
    this.id = id;
  }

  get snapshotKey(): string {
    return this.id;
  }

  async run(output: RunOutput, signal?: AbortSignal): Promise<number> {
    const container = this.#services.containers.find(this.id);
    const streams = streamsOf(this.#services, container);
    const sinks = (['stdout', 'stderr'] as const).map((name) => {
      const sink = new OutputSink((chunk) => output(chunk, name));
      const attached = streams.attach(sink, {
        stdin: false,
        stdout: name === 'stdout',
        stderr: name === 'stderr',
        multiplexed: false,
        detachKeys: Buffer.alloc(0),
      });
      return { sink, attached };
    });
    const stop = (): void => void killContainer(this.#services, this.id, 'KILL').catch(() => undefined);
    signal?.addEventListener('abort', stop, { once: true });
    try {
      const exited = waitForCondition(container, 'next-exit', new AbortController().signal);
      await startContainer(this.#services, this.id);
      if (signal?.aborted) stop();
      const { exitCode } = await exited;
      for (const { sink, attached } of sinks) {
        await attached;
        await sink.flushed();
      }
      signal?.throwIfAborted();
      return exitCode;
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  }

  async remove(): Promise<void> {
    await removeContainer(this.#services, this.id, { force: true, removeVolumes: true, link: false });
  }
}

/** Hands output to the build's own stream, one chunk after the other. */
class OutputSink extends Duplex {
  readonly #output: (chunk: Buffer) => Promise<void> | void;
  #pending: Promise<void> = Promise.resolve();

  constructor(output: (chunk: Buffer) => Promise<void> | void) {
    super();
    this.#output = output;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    // The chunk's memory is used again once we are done with it.
    this.#pending = Promise.resolve(this.#output(Buffer.from(chunk)));
    this.#pending.then(() => done(), done);
  }

  override _read(): void {}

  flushed(): Promise<void> {
    return this.#pending;
  }
}
