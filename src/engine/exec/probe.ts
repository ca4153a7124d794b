/** Runs a health probe: an exec whose output is captured up to a limit, ended at a timeout. */
import { Duplex } from 'node:stream';
import type { ExecInstance } from '#services/containers/exec.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { errorMessage } from '#types/errors.ts';
import { newId } from '#types/ids.ts';
import { SIGKILL } from '#types/signal.ts';
import { execAction, publishContainerEvent } from '../containers/events.ts';
import type { Services } from '../services.ts';
import { launchExec } from './exec.ts';

/** Bytes of output kept of one probe, as dockerd. */
const OUTPUT_LIMIT_BYTES = 4096;
/** A probe that cannot be run or times out counts as this exit code. */
const FAILED = -1;

/** Exit code and output of a probe. */
export interface ProbeResult {
  readonly exitCode: number;
  readonly output: string;
}

/** Runs `command` in the container; never throws. */
export async function runProbe(
  services: Services,
  container: LiveContainer,
  command: readonly string[],
  timeoutMs: number,
  signal: AbortSignal,
): Promise<ProbeResult> {
  const collector = new OutputCollector();
  const exec = probeExec(services, container, command);
  services.containers.addExec(container, exec);
  publishContainerEvent(services.events, container.record, execAction('create', command), { execID: exec.id });
  try {
    const attached = exec.streams.attach(collector, {
      stdin: false,
      stdout: true,
      stderr: true,
      multiplexed: false,
      detachKeys: Buffer.alloc(0),
    });
    attached.catch(() => undefined);
    const { exited } = await launchExec(services, container, exec);
    const timeout = AbortSignal.any([AbortSignal.timeout(timeoutMs), signal]);
    const outcome = await Promise.race([exited, aborted(timeout)]);
    if (outcome !== undefined) return { exitCode: outcome === 0 ? 0 : outcome, output: collector.text() };
    await container.task?.shim.kill(container.id, SIGKILL, { execId: exec.id, all: false }).catch(() => undefined);
    const reason = `Health check exceeded timeout (${goDuration(timeoutMs)})`;
    const output = collector.text();
    return { exitCode: FAILED, output: output === '' ? reason : `${reason}: ${output}` };
  } catch (error) {
    return { exitCode: FAILED, output: errorMessage(error) };
  } finally {
    services.containers.removeExec(container, exec.id);
  }
}

function probeExec(services: Services, container: LiveContainer, command: readonly string[]): ExecInstance {
  const streams = services.streams({
    terminal: false,
    openStdin: false,
    stdinOnce: false,
    closeStdin: async () => undefined,
  });
  const config = { Cmd: [...command], AttachStdout: true, AttachStderr: true };
  return {
    id: newId(),
    containerId: container.id,
    config,
    streams,
    endedAtMs: undefined,
    state: { status: 'created' },
  };
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(undefined), { once: true }));
}

function goDuration(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`;
}

/** Keeps the first bytes written to it and swallows the rest. */
class OutputCollector extends Duplex {
  readonly #chunks: Buffer[] = [];
  #sizeBytes = 0;
  #truncated = false;

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const room = OUTPUT_LIMIT_BYTES - this.#sizeBytes;
    if (chunk.length > room) this.#truncated = true;
    // Copied: what it was read into is used again after `done`.
    if (room > 0) this.#chunks.push(Buffer.from(chunk.subarray(0, room)));
    this.#sizeBytes += Math.min(room, chunk.length);
    done();
  }

  override _read(): void {}

  text(): string {
    return Buffer.concat(this.#chunks).toString('utf8') + (this.#truncated ? '...' : '');
  }
}
