/** Execs: create, start, resize, inspect (`docker exec`). Instances are kept in memory until a while after their end. */
import { mkdirSync, rmSync } from 'node:fs';
import type { Duplex } from 'node:stream';
import { isAlive } from '#services/containers/container.ts';
import type { ExecInstance } from '#services/containers/exec.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { parseDetachKeys } from '#services/streams/detach-keys.ts';
import { errorMessage, GantryError, wrapError } from '#types/errors.ts';
import { type Id, newId } from '#types/ids.ts';
import { frameChunk } from '#types/stream-frame.ts';
import type { ExecConfig } from '#wire/engine.ts';
import { execAction, publishContainerEvent } from '../containers/events.ts';
import { checkExecUser, execProcessFor } from '../containers/spec.ts';
import { explainStartFailure } from '../containers/start-failure.ts';
import type { Services } from '../services.ts';

/** An ended exec can be inspected this long (dockerd collects every five minutes). */
const ENDED_KEPT_MS = 5 * 60_000;
/** Execs of one container; the oldest ended ones go first, and when none has ended no more are created. */
export const EXECS_PER_CONTAINER_LIMIT = 10_000;

/** `POST /containers/{id}/exec`. */
export function createExec(services: Services, reference: string, config: ExecConfig): Id {
  const container = services.containers.find(reference);
  requireRunning(container, reference);
  if ((config.Cmd ?? []).length === 0) throw new GantryError('invalid', 'No exec command specified');
  checkDetachKeys(config.DetachKeys ?? '');
  checkExecUser(container, config);
  collectEnded(services, container);
  const id = newId();
  const streams = services.streams({
    terminal: config.Tty ?? false,
    openStdin: config.AttachStdin ?? false,
    stdinOnce: true,
    closeStdin: async () => {
      await container.task?.shim.closeStdin(container.id, id);
    },
  });
  services.containers.addExec(container, {
    id,
    containerId: container.id,
    config,
    streams,
    endedAtMs: undefined,
    state: { status: 'created' },
  });
  publishContainerEvent(services.events, container.record, execAction('create', config.Cmd ?? []), {
    execID: id,
  });
  return id;
}

// Compat: an exec has a text, and a 500, of its own for them.
function checkDetachKeys(text: string): void {
  try {
    parseDetachKeys(text);
  } catch (error) {
    throw new GantryError('system', `Invalid escape keys (${text}) provided`, { cause: error });
  }
}

/** Throws docker's `conflict`s for containers that cannot exec. */
export function requireRunning(container: LiveContainer, reference: string = container.id): void {
  const { status } = container.state;
  if (status === 'paused') {
    throw new GantryError('conflict', `Container ${reference} is paused, unpause the container before exec`);
  }
  if (status === 'restarting') {
    throw new GantryError('conflict', `Container ${container.id} is restarting, wait until the container is running`);
  }
  if (!isAlive(container.state)) throw new GantryError('conflict', `container ${container.id} is not running`);
}

/** Makes room for one more; throws `conflict` when there is none. Exported for tests. */
export function collectEnded(services: Pick<Services, 'containers'>, container: LiveContainer): void {
  const limit = Date.now() - ENDED_KEPT_MS;
  for (const [id, exec] of container.execs) {
    const ended = exec.endedAtMs;
    if (ended === undefined) continue;
    if (ended < limit || container.execs.size >= EXECS_PER_CONTAINER_LIMIT)
      services.containers.removeExec(container, id);
  }
  if (container.execs.size >= EXECS_PER_CONTAINER_LIMIT) {
    throw new GantryError(
      'conflict',
      `container ${container.id} has ${EXECS_PER_CONTAINER_LIMIT} execs that have not ended: start them or restart the container`,
    );
  }
}

/** Finds an exec in any container. Throws `notFound`. */
export function findExec(
  services: Pick<Services, 'containers'>,
  id: string,
): { container: LiveContainer; exec: ExecInstance } {
  const container = services.containers.ownerOfExec(id as Id);
  const exec = container?.execs.get(id as Id);
  if (container !== undefined && exec !== undefined) return { container, exec };
  throw new GantryError('notFound', `No such exec instance: ${id}`);
}

/** Checks what is checked before the connection is taken over: the exec exists in a container that runs. */
export function requireExec(services: Pick<Services, 'containers'>, id: string): ExecInstance {
  const { container, exec } = findExec(services, id);
  requireRunning(container);
  return exec;
}

function notStartable(exec: ExecInstance): GantryError | undefined {
  if (exec.state.status === 'exited') return new GantryError('conflict', `exec command ${exec.id} has already run`);
  if (exec.state.status === 'running') return new GantryError('conflict', `exec command ${exec.id} is already running`);
  return undefined;
}

export interface StartExecOptions {
  /** The client; undefined: detached. */
  readonly client: Duplex | undefined;
  readonly multiplexed: boolean;
  readonly consoleSize: readonly [height: number, width: number] | undefined;
}

/** Starts the exec and, with a client, serves it until the process ends or the client detaches. */
export async function startExec(services: Services, id: string, options: StartExecOptions): Promise<void> {
  const { container, exec } = findExec(services, id);
  requireRunning(container);
  const { client } = options;
  // Compat: the answer's head is gone, so the text goes to the client as output and only the exit code tells.
  const tell = (error: GantryError): unknown => client?.write(explanation(error, options.multiplexed));
  const refusal = notStartable(exec);
  if (refusal !== undefined) {
    tell(refusal);
    throw refusal;
  }
  const attached =
    options.client === undefined
      ? undefined
      : exec.streams.attach(options.client, {
          stdin: exec.config.AttachStdin ?? false,
          stdout: exec.config.AttachStdout ?? false,
          stderr: exec.config.AttachStderr ?? false,
          multiplexed: options.multiplexed,
          detachKeys: exec.config.Tty === true ? parseDetachKeys(exec.config.DetachKeys ?? '') : Buffer.alloc(0),
        });
  attached?.catch(() => undefined);
  await launchExec(services, container, exec, { consoleSize: options.consoleSize, onFailure: tell });
  const end = await attached;
  if (end === 'detached') publishContainerEvent(services.events, container.record, 'exec_detach', { execID: id });
}

function explanation(error: GantryError, multiplexed: boolean): Buffer {
  const text = Buffer.from(`${error.message}\r\n`);
  return multiplexed ? frameChunk('stdout', text) : text;
}

export interface LaunchExecOptions {
  readonly consoleSize?: readonly [height: number, width: number] | undefined;
  /** Called before attached clients are ended because the process could not be started. */
  readonly onFailure?: (error: GantryError) => unknown;
}

/** Runs the process; resolves once it has started. `exited` of the result resolves when it has ended and been cleaned up. */
export async function launchExec(
  services: Services,
  container: LiveContainer,
  exec: ExecInstance,
  options: LaunchExecOptions = {},
): Promise<{ exited: Promise<number> }> {
  const task = container.task;
  if (task === undefined) throw new GantryError('conflict', `container ${container.id} is not running`);
  exec.state = { status: 'running', pid: 0 };
  publishContainerEvent(services.events, container.record, execAction('start', exec.config.Cmd ?? []), {
    execID: exec.id,
  });
  const directory = services.settings.paths.streams(container.id, exec.id);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const size = options.consoleSize === undefined ? {} : { ConsoleSize: [...options.consoleSize] };
    const process = execProcessFor(services, container, { ...exec.config, ...size });
    const stdio = await exec.streams.open(directory, undefined);
    await task.shim.exec({ id: container.id, execId: exec.id, stdio, process });
    const exitedRaw = task.shim.wait(container.id, exec.id);
    exitedRaw.catch(() => undefined);
    const { pid } = await task.shim.start(container.id, exec.id);
    exec.streams.connected();
    exec.state = { status: 'running', pid };
    const exited = finishExec(
      services,
      container,
      exec,
      directory,
      pid,
      exitedRaw.then((exit) => exit.exitStatus),
    );
    return { exited };
  } catch (error) {
    const failure = explainStartFailure(new GantryError('invalid', `failed to start task: ${errorMessage(error)}`));
    // Before the client's stream ends: it asks for the exit code right after.
    exec.state = { status: 'exited', exitCode: isRuntimeText(errorMessage(error)) ? failure.exitCode : 126, pid: 0 };
    const told = wrapExecError(error);
    options.onFailure?.(told);
    await failExec(container, exec, directory);
    throw told;
  }
}

// Compat: the runtime's text arrives bare for a missing executable; everything else is passed on.
function wrapExecError(error: unknown): GantryError {
  const message = errorMessage(error);
  if (isRuntimeText(message)) return new GantryError('invalid', message, { cause: error });
  return wrapError('failed to exec', error);
}

const isRuntimeText = (message: string): boolean => message.startsWith('OCI runtime exec failed');

async function failExec(container: LiveContainer, exec: ExecInstance, directory: string): Promise<void> {
  exec.endedAtMs = Date.now();
  await container.task?.shim.delete(container.id, exec.id).catch(() => undefined);
  await exec.streams.finish();
  rmSync(directory, { recursive: true, force: true });
}

async function finishExec(
  services: Services,
  container: LiveContainer,
  exec: ExecInstance,
  directory: string,
  pid: number,
  exited: Promise<number>,
): Promise<number> {
  const exitCode = await exited.catch(() => 137);
  exec.state = { status: 'exited', exitCode, pid };
  exec.endedAtMs = Date.now();
  publishContainerEvent(services.events, container.record, 'exec_die', { execID: exec.id, exitCode: String(exitCode) });
  await exec.streams.finish();
  await container.task?.shim.delete(container.id, exec.id).catch(() => undefined);
  rmSync(directory, { recursive: true, force: true });
  return exitCode;
}

/** `POST /exec/{id}/resize`. */
export async function resizeExec(
  services: Pick<Services, 'containers'>,
  id: string,
  size: { width: number; height: number },
): Promise<void> {
  const { container, exec } = findExec(services, id);
  if (exec.state.status !== 'running' || container.task === undefined) {
    throw new GantryError('invalid', 'exec process is not started');
  }
  await container.task.shim.resizePty(container.id, size, exec.id);
}
