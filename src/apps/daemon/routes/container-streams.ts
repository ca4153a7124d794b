/** Routes that stream: attach (hijacked and WebSocket), logs, stats. */
import type { Duplex } from 'node:stream';
import { attachable, attachContainer } from '#engine/containers/attach.ts';
import { type LogsOptions, readableLogs, streamLogs } from '#engine/containers/logs.ts';
import { containerStats } from '#engine/containers/stats.ts';
import type { Services } from '#engine/services.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { parseDetachKeys } from '#services/streams/detach-keys.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { parseTimestamp } from '#types/timestamp.ts';
import type { Query, Route, RouteContext } from '../http/route.ts';
import { idOf } from './containers.ts';

const RAW = 'application/vnd.docker.raw-stream';
const MULTIPLEXED = 'application/vnd.docker.multiplexed-stream';

/** The routes. */
export function containerStreamRoutes(services: Services): Route[] {
  return [
    { method: 'POST', path: '/containers/{id}/attach', handler: (context) => attach(services, context) },
    { method: 'GET', path: '/containers/{id}/attach/ws', handler: (context) => attachWebSocket(services, context) },
    { method: 'GET', path: '/containers/{id}/logs', handler: (context) => logs(services, context) },
    { method: 'GET', path: '/containers/{id}/stats', handler: (context) => stats(services, context) },
  ];
}

/** Content type of a stream: framed ones are named as such from API 1.42 on. */
export function streamType(multiplexed: boolean, context: RouteContext): string {
  return multiplexed && context.version.atLeast(42) ? MULTIPLEXED : RAW;
}

async function attach(services: Services, context: RouteContext): Promise<void> {
  const { query } = context;
  const detachKeys = parseDetachKeys(query.text('detachKeys'));
  const container = services.containers.find(idOf(context));
  const multiplexed = container.record.config.Tty !== true;
  const client = await context.hijack({ contentType: streamType(multiplexed, context) });
  try {
    attachable(services, idOf(context));
    await attachContainer(
      services,
      container,
      client,
      { ...attachFlags(query), detachKeys, multiplexed },
      context.signal,
    );
  } catch (error) {
    // Compat: after the take-over an error is written as a raw answer of its own.
    client.end(`HTTP/1.1 409 Conflict\r\nContent-Type: ${RAW}\r\n\r\n${errorMessage(error)}\r\n`);
  }
}

function attachFlags(query: Query): {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  logs: boolean;
  stream: boolean;
} {
  return {
    stdin: query.flag('stdin'),
    stdout: query.flag('stdout'),
    stderr: query.flag('stderr'),
    logs: query.flag('logs'),
    stream: query.flag('stream'),
  };
}

async function attachWebSocket(services: Services, context: RouteContext): Promise<void> {
  const { query, version } = context;
  const detachKeys = parseDetachKeys(query.text('detachKeys'));
  const container: LiveContainer = attachable(services, idOf(context));
  const flags = attachFlags(query);
  // Compat: before 1.42 a WebSocket always carried all three streams.
  const streams = version.atLeast(42) ? flags : { ...flags, stdin: true, stdout: true, stderr: true };
  const client: Duplex = await context.websocket();
  await attachContainer(services, container, client, { ...streams, detachKeys, multiplexed: false }, context.signal);
}

async function logs(services: Services, context: RouteContext): Promise<void> {
  const options = logsOptions(context.query);
  const container = readableLogs(services, idOf(context), options);
  const multiplexed = container.record.config.Tty !== true;
  await context.bytes(streamType(multiplexed, context), streamLogs(services, container, options, context.signal));
}

function logsOptions(query: Query): LogsOptions {
  const tail = query.text('tail');
  return {
    stdout: query.flag('stdout'),
    stderr: query.flag('stderr'),
    sinceNs: logTime(query, 'since'),
    untilNs: logTime(query, 'until'),
    // Compat: anything that is no number means all.
    tail: /^\d+$/.test(tail) ? Number(tail) : undefined,
    follow: query.flag('follow'),
    timestamps: query.flag('timestamps'),
    details: query.flag('details'),
  };
}

// Compat: "0" and "" mean no bound.
function logTime(query: Query, key: 'since' | 'until'): bigint | undefined {
  const text = query.text(key);
  if (text === '' || text === '0') return undefined;
  try {
    return parseTimestamp(text, Date.now());
  } catch (error) {
    throw new GantryError('invalid', `invalid value for "${key}": ${errorMessage(error)}`, { cause: error });
  }
}

async function stats(services: Services, context: RouteContext): Promise<void> {
  const { query, version } = context;
  const stream = query.flag('stream', true);
  const oneShot = version.atLeast(41) && query.flag('one-shot');
  const samples = containerStats(services, idOf(context), { stream, oneShot }, context.signal);
  if (!stream) {
    for await (const sample of samples) return context.json(sample);
    return;
  }
  const lines = context.jsonLines();
  for await (const sample of samples) await lines.write(sample);
  lines.end();
}
