/** `GET /exec/{id}/json`. */
import { parseDetachKeys } from '#services/streams/detach-keys.ts';
import type { ExecInspectResponse } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import { findExec } from './exec.ts';

/** What docker shows of an exec; ExitCode is null until it has ended. */
export function inspectExec(services: Pick<Services, 'containers'>, id: string): ExecInspectResponse {
  const { exec } = findExec(services, id);
  const { config, state } = exec;
  const [entrypoint = '', ...args] = config.Cmd ?? [];
  return {
    ID: exec.id,
    Running: state.status === 'running',
    ExitCode: state.status === 'exited' ? state.exitCode : null,
    ProcessConfig: {
      tty: config.Tty ?? false,
      entrypoint,
      arguments: args,
      privileged: config.Privileged ?? false,
      ...(config.User ? { user: config.User } : {}),
    },
    OpenStdin: config.AttachStdin ?? false,
    OpenStderr: config.AttachStderr ?? false,
    OpenStdout: config.AttachStdout ?? false,
    CanRemove: state.status === 'exited',
    ContainerID: exec.containerId,
    DetachKeys: config.DetachKeys ? parseDetachKeys(config.DetachKeys).toString('base64') : '',
    Pid: state.status === 'created' ? 0 : state.pid,
  } as ExecInspectResponse;
}
