/** Exec routes. */

import { createExec, requireExec, resizeExec, startExec } from '#engine/exec/exec.ts';
import { inspectExec } from '#engine/exec/inspect.ts';
import type { Services } from '#engine/services.ts';
import { GantryError } from '#types/errors.ts';
import type { ExecConfig, ExecStartConfig } from '#wire/engine.ts';
import type { Route, RouteContext } from '../http/route.ts';
import { streamType } from './container-streams.ts';
import { idOf, sizeOf } from './containers.ts';

/** The routes. */
export function execRoutes(services: Services): Route[] {
  return [
    { method: 'POST', path: '/containers/{id}/exec', handler: (context) => create(services, context) },
    { method: 'POST', path: '/exec/{id}/start', handler: (context) => start(services, context) },
    {
      method: 'POST',
      path: '/exec/{id}/resize',
      handler: async (context) => {
        await resizeExec(services, idOf(context), sizeOf(context.query));
        context.empty(200);
      },
    },
    {
      method: 'GET',
      path: '/exec/{id}/json',
      handler: (context) => context.json(inspectExec(services, idOf(context))),
    },
  ];
}

async function create(services: Services, context: RouteContext): Promise<void> {
  const config = (await context.optionalBody<ExecConfig>('ExecConfig')) ?? {};
  const { ConsoleSize, ...older } = config;
  const usable = context.version.atLeast(42) && ConsoleSize !== undefined ? config : older;
  context.json({ Id: createExec(services, idOf(context), usable) }, 201);
}

async function start(services: Services, context: RouteContext): Promise<void> {
  const id = idOf(context);
  const options = (await context.optionalBody<ExecStartConfig>('ExecStartConfig')) ?? {};
  const exec = requireExec(services, id);
  const consoleSize = consoleSizeOf(options, context);
  if (options.Detach === true) {
    await startExec(services, id, { client: undefined, multiplexed: false, consoleSize });
    context.empty(200);
    return;
  }
  const multiplexed = exec.config.Tty !== true;
  const client = await context.hijack({ contentType: streamType(multiplexed, context) });
  // Compat: the head is gone, so a failure (told in the stream) leaves only the exit code to be asked for.
  await startExec(services, id, { client, multiplexed, consoleSize }).catch(() => client.end());
}

function consoleSizeOf(options: ExecStartConfig, context: RouteContext): [number, number] | undefined {
  const size = options.ConsoleSize;
  if (size === undefined || size === null || !context.version.atLeast(42)) return undefined;
  if (options.Tty !== true) throw new GantryError('invalid', 'console size is only supported when TTY is enabled');
  const [height = 0, width = 0] = size;
  return [height, width];
}
