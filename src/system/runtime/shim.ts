/**
 * One connection to one shim: the contract's `Shim` spoken as containerd's Task API over ttrpc.
 *
 * Invariant: holds no task state of its own, so that losing the connection loses nothing.
 * Version 2 (containerd 1.x) and version 3 (2.x) differ in the service's name only.
 */
import { lstatSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { GantryError } from '#types/errors.ts';
import type { CreateTaskOptions, ExecTaskOptions, ExitStatus, Shim, TaskState, TaskStatus } from './contract.ts';
import {
  CLOSE_IO_REQUEST,
  CONNECT_RESPONSE,
  CREATE_TASK_REQUEST,
  DELETE_RESPONSE,
  EMPTY,
  EXEC_REQUEST,
  type ExitFields,
  formatTimestamp,
  KILL_REQUEST,
  PID_RESPONSE,
  PIDS_RESPONSE,
  PROCESS_REQUEST,
  RESIZE_REQUEST,
  RUNC_OPTIONS,
  SHUTDOWN_REQUEST,
  STATE_RESPONSE,
  type StateResponse,
  UPDATE_REQUEST,
  WAIT_RESPONSE,
} from './messages.ts';
import { encode, type FieldTable } from './protobuf.ts';
import { callMessage, connectTtrpc, type TtrpcClient } from './ttrpc.ts';

const OCI_TYPE_PREFIX = 'types.containerd.io/opencontainers/runtime-spec/1/';
const STATUSES: readonly TaskStatus[] = ['unknown', 'created', 'running', 'stopped', 'paused', 'pausing'];
/** How long a shim that was told to shut down may take to close its connection. */
const SHUTDOWN_GRACE_MS = 3000;

/** Where a shim listens and which Task API it speaks; written as the contract's `address` text. */
export interface ShimAddress {
  readonly path: string;
  readonly version: 2 | 3;
}

const VERSION_3_PREFIX = 'v3+';

/** The text saved in the container's record. */
export function formatShimAddress(address: ShimAddress): string {
  return `${address.version === 3 ? VERSION_3_PREFIX : ''}unix://${address.path}`;
}

/** Reads a saved address; throws `invalid` for another transport. */
export function parseShimAddress(text: string): ShimAddress {
  const version = text.startsWith(VERSION_3_PREFIX) ? 3 : 2;
  const address = version === 3 ? text.slice(VERSION_3_PREFIX.length) : text;
  if (address.startsWith('unix://')) return { path: address.slice('unix://'.length), version };
  if (address.startsWith('/')) return { path: address, version };
  throw new GantryError('invalid', `unsupported shim address: ${text}`);
}

/** Connects to a listening shim and asks for its process ID. */
export async function connectShim(address: ShimAddress, namespace: string, signal?: AbortSignal): Promise<TaskShim> {
  const client = await connectTtrpc(address.path, { 'containerd-namespace-ttrpc': namespace }, signal);
  try {
    const target = {
      service: serviceOf(address),
      method: 'Connect',
      request: PROCESS_REQUEST,
      response: CONNECT_RESPONSE,
    };
    const reply = await callMessage<{ shimPid: number }>(client, target, {}, signal);
    return new TaskShim(client, address, reply.shimPid);
  } catch (error) {
    client[Symbol.dispose]();
    throw error;
  }
}

/** A killed shim leaves its socket; `bundle` is the directory it ran in. A socket someone answers on stays. */
export async function removeDeadSocket(bundle: string): Promise<void> {
  let path: string;
  try {
    path = parseShimAddress(readFileSync(join(bundle, 'address'), 'utf8').trim()).path;
  } catch {
    return;
  }
  await removeIfDead(path);
}

/** Removes a socket that nobody answers on. */
export async function removeIfDead(path: string): Promise<void> {
  try {
    (await connectTtrpc(path, {}))[Symbol.dispose]();
  } catch {
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) rmSync(path, { force: true });
  }
}

function serviceOf(address: ShimAddress): string {
  return `containerd.task.v${address.version}.Task`;
}

/** A connected shim. */
export class TaskShim implements Shim {
  readonly address: string;
  readonly pid: number;
  readonly closed: Promise<void>;
  readonly #client: TtrpcClient;
  readonly #service: string;

  constructor(client: TtrpcClient, address: ShimAddress, pid: number) {
    this.#client = client;
    this.#service = serviceOf(address);
    this.address = formatShimAddress(address);
    this.pid = pid;
    this.closed = client.closed;
  }

  create(options: CreateTaskOptions, signal?: AbortSignal): Promise<{ pid: number }> {
    const request = {
      id: options.id,
      bundle: options.bundle,
      ...options.stdio,
      options: { typeUrl: 'containerd.runc.v1.Options', value: encode(RUNC_OPTIONS, options.runc) },
    };
    return this.#call('Create', { request: CREATE_TASK_REQUEST, response: PID_RESPONSE }, request, signal);
  }

  start(id: string, execId = '', signal?: AbortSignal): Promise<{ pid: number }> {
    return this.#call('Start', { request: PROCESS_REQUEST, response: PID_RESPONSE }, { id, execId }, signal);
  }

  async exec(options: ExecTaskOptions, signal?: AbortSignal): Promise<void> {
    const spec = anyJson('Process', options.process);
    const request = { id: options.id, execId: options.execId, ...options.stdio, spec };
    await this.#call('Exec', { request: EXEC_REQUEST, response: EMPTY }, request, signal);
  }

  async wait(id: string, execId = '', signal?: AbortSignal): Promise<ExitStatus> {
    const tables = { request: PROCESS_REQUEST, response: WAIT_RESPONSE };
    return exitOf(await this.#call<ExitFields>('Wait', tables, { id, execId }, signal));
  }

  async kill(id: string, signalNumber: number, options: { execId?: string; all?: boolean } = {}): Promise<void> {
    const request = { id, execId: options.execId ?? '', signal: signalNumber, all: options.all === true };
    await this.#call('Kill', { request: KILL_REQUEST, response: EMPTY }, request);
  }

  async delete(id: string, execId = ''): Promise<ExitStatus> {
    const tables = { request: PROCESS_REQUEST, response: DELETE_RESPONSE };
    return exitOf(await this.#call<ExitFields>('Delete', tables, { id, execId }));
  }

  async state(id: string, execId = ''): Promise<TaskState> {
    const tables = { request: PROCESS_REQUEST, response: STATE_RESPONSE };
    const reply = await this.#call<StateResponse>('State', tables, { id, execId });
    return { ...exitOf(reply), status: STATUSES[reply.status] ?? 'unknown', pid: reply.pid };
  }

  async pids(id: string): Promise<number[]> {
    const tables = { request: PROCESS_REQUEST, response: PIDS_RESPONSE };
    const reply = await this.#call<{ processes: { pid: number }[] }>('Pids', tables, { id });
    return reply.processes.map((process) => process.pid);
  }

  async pause(id: string): Promise<void> {
    await this.#call('Pause', { request: PROCESS_REQUEST, response: EMPTY }, { id });
  }

  async resume(id: string): Promise<void> {
    await this.#call('Resume', { request: PROCESS_REQUEST, response: EMPTY }, { id });
  }

  async resizePty(id: string, size: { width: number; height: number }, execId = ''): Promise<void> {
    await this.#call('ResizePty', { request: RESIZE_REQUEST, response: EMPTY }, { id, execId, ...size });
  }

  async closeStdin(id: string, execId = ''): Promise<void> {
    await this.#call('CloseIO', { request: CLOSE_IO_REQUEST, response: EMPTY }, { id, execId, stdin: true });
  }

  async update(id: string, resources: object): Promise<void> {
    const request = { id, resources: anyJson('LinuxResources', resources) };
    await this.#call('Update', { request: UPDATE_REQUEST, response: EMPTY }, request);
  }

  /** A shim without tasks ends itself, often before it has answered: losing the connection is success. */
  async shutdown(id: string): Promise<void> {
    const request = { id, now: false };
    const answered = this.#call('Shutdown', { request: SHUTDOWN_REQUEST, response: EMPTY }, request).catch((error) => {
      if (!(error instanceof GantryError && error.kind === 'unavailable')) throw error;
    });
    await Promise.race([answered, this.closed, delay(SHUTDOWN_GRACE_MS, undefined, { ref: false })]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client[Symbol.dispose]();
    await this.closed;
  }

  #call<T>(
    method: string,
    tables: { request: FieldTable; response: FieldTable },
    value: object,
    signal?: AbortSignal,
  ): Promise<T> {
    return callMessage<T>(this.#client, { service: this.#service, method, ...tables }, value, signal);
  }
}

function exitOf(fields: ExitFields): ExitStatus {
  return { exitStatus: fields.exitStatus, exitedAt: formatTimestamp(fields.exitedAt) };
}

function anyJson(type: string, value: object): { typeUrl: string; value: Buffer } {
  return { typeUrl: `${OCI_TYPE_PREFIX}${type}`, value: Buffer.from(JSON.stringify(value)) };
}
