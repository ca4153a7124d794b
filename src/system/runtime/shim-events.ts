/**
 * The socket shims publish their events on (`TTRPC_ADDRESS`): containerd's ttrpc Events service.
 *
 * Invariant: the path stays the same over restarts of the daemon, because a running shim keeps the one
 * it was started with and reconnects to it.
 */
import { once } from 'node:events';
import { chmodSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { GantryError } from '#types/errors.ts';
import type { ShimEvent } from './contract.ts';
import {
  type Any,
  EMPTY,
  FORWARD_REQUEST,
  formatTimestamp,
  TASK_EXIT,
  TASK_OOM,
  type TaskExitEvent,
} from './messages.ts';
import { decode, encode } from './protobuf.ts';
import { serveTtrpc } from './ttrpc.ts';

const SERVICE = 'containerd.services.events.ttrpc.v1.Events';

interface Envelope {
  readonly namespace: string;
  readonly topic: string;
  readonly event: Any | undefined;
}

/** Reads one forwarded event; undefined for kinds the engine does not use. */
export function parseShimEvent(payload: Uint8Array): ShimEvent | undefined {
  const { envelope } = decode<{ envelope: Envelope | undefined }>(FORWARD_REQUEST, payload);
  const event = envelope?.event;
  if (envelope === undefined || event === undefined) return undefined;
  if (envelope.topic === '/tasks/exit') {
    const exit = decode<TaskExitEvent>(TASK_EXIT, event.value);
    return {
      type: 'exit',
      containerId: exit.containerId,
      // The first process carries the container's own ID.
      execId: exit.id === exit.containerId ? '' : exit.id,
      pid: exit.pid,
      exit: { exitStatus: exit.exitStatus, exitedAt: formatTimestamp(exit.exitedAt) },
    };
  }
  if (envelope.topic === '/tasks/oom') {
    return { type: 'oom', containerId: decode<{ containerId: string }>(TASK_OOM, event.value).containerId };
  }
  return undefined;
}

/** A listening event socket. */
export class ShimEventServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #listeners = new Set<(event: ShimEvent) => void>();

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      serveTtrpc(socket, (request) => this.#handle(request.service, request.method, request.payload));
    });
  }

  /** Listens at `path`, replacing a socket file left by an earlier daemon. */
  static async listen(path: string): Promise<ShimEventServer> {
    rmSync(path, { force: true });
    const server = createServer();
    server.listen(path);
    await once(server, 'listening');
    chmodSync(path, 0o600);
    return new ShimEventServer(server);
  }

  subscribe(listener: (event: ShimEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listeners.clear();
    for (const socket of this.#sockets) socket.destroy();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }

  #handle(service: string, method: string, payload: Uint8Array): Buffer {
    if (service !== SERVICE || method !== 'Forward') {
      throw new GantryError('notImplemented', `service ${service}/${method}`);
    }
    const event = parseShimEvent(payload);
    if (event !== undefined) for (const listener of this.#listeners) listener(event);
    return encode(EMPTY, {});
  }
}
