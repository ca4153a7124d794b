/** `docker top`: the host's `ps`, reduced to the container's processes. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { isAlive } from '#services/containers/container.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';

const run = promisify(execFile);
/** A host has at most a few tens of thousands of processes, a line each. */
const PS_OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024;
/** Longest run of `ps`; it hangs when a process of the host does in the kernel. */
const PS_TIMEOUT_MS = 30_000;
/** Characters of arguments docker lets through to `ps`. */
const SAFE_ARGUMENTS = /\s+/;

export interface TopResult {
  readonly Titles: string[];
  readonly Processes: string[][];
}

/** Runs `ps` with the caller's arguments (default `-ef`). Throws `conflict` when the container does not run. */
export async function topContainer(
  services: Pick<Services, 'containers' | 'events'>,
  reference: string,
  psArguments: string,
  signal?: AbortSignal,
): Promise<TopResult> {
  const container = services.containers.find(reference);
  const { status } = container.state;
  if (status === 'restarting') {
    throw new GantryError('conflict', `Container ${container.id} is restarting, wait until the container is running`);
  }
  if (!isAlive(container.state) || container.task === undefined) {
    throw new GantryError('conflict', `container ${container.id} is not running`);
  }
  const args = (psArguments === '' ? '-ef' : psArguments).split(SAFE_ARGUMENTS).filter((arg) => arg !== '');
  checkArguments(args.join(' '));
  const pids = await container.task.shim.pids(container.id);
  const output = await ps(args, pids, signal);
  const result = selectProcesses(output, new Set(pids));
  publishContainerEvent(services.events, container.record, 'top');
  return result;
}

// Compat: `-o pid=…` style renames of the PID column would hide it.
function checkArguments(args: string): void {
  for (const match of args.matchAll(/\s+([^\s]*)=\s*(PID[^\s]*)/g)) {
    throw new GantryError('system', `specifying "${match[1]}=${match[2]}" is not allowed`);
  }
}

/** First with `-q` (only these processes); some formats refuse it, then the whole table is read. */
async function ps(args: readonly string[], pids: readonly number[], signal?: AbortSignal): Promise<string> {
  const options = {
    maxBuffer: PS_OUTPUT_LIMIT_BYTES,
    timeout: PS_TIMEOUT_MS,
    killSignal: 'SIGKILL',
    env: { PATH: process.env['PATH'], LC_ALL: 'C.UTF-8' },
    ...(signal === undefined ? {} : { signal }),
  } as const;
  try {
    return (await run('ps', [...args, '-q', pids.join(',')], options)).stdout;
  } catch (error) {
    // What ran out of time or of interest would only do so again.
    if (signal?.aborted === true || (error as { killed?: boolean }).killed === true) {
      throw new GantryError('system', `ps: ${errorMessage(error)}`, { cause: error });
    }
    try {
      return (await run('ps', [...args], options)).stdout;
    } catch (error) {
      // Compat: the first line tells why; the rest is `ps`'s usage.
      const reason = (error as { stderr?: string }).stderr?.split('\n', 1)[0];
      throw new GantryError('system', `ps: ${reason || errorMessage(error)}`, { cause: error });
    }
  }
}

/** Splits `ps` output into columns; the last column keeps its spaces. Exported for tests. */
export function selectProcesses(output: string, pids: ReadonlySet<number>): TopResult {
  const lines = output.split('\n').filter((line) => line !== '');
  const titles = (lines[0] ?? '').trim().split(/\s+/);
  const pidColumn = titles.indexOf('PID');
  if (pidColumn < 0) throw new GantryError('system', "Couldn't find PID field in ps output");
  const processes: string[][] = [];
  let previousSelected = false;
  for (const line of lines.slice(1)) {
    const fields = line.trim().split(/\s+/);
    if (fields[pidColumn] === '-') {
      // Threads of the process above.
      if (previousSelected) processes.push(columns(fields, titles.length));
      continue;
    }
    previousSelected = pids.has(Number(fields[pidColumn]));
    if (previousSelected) processes.push(columns(fields, titles.length));
  }
  return { Titles: titles, Processes: processes };
}

function columns(fields: readonly string[], count: number): string[] {
  return [...fields.slice(0, count - 1), fields.slice(count - 1).join(' ')];
}
