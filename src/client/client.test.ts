import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { errorKind } from '#types/errors.ts';
import { Client } from './client.ts';
import { isVersionLess } from './connection.ts';
import { parseEndpoint } from './endpoint.ts';
import { collectOutput, demultiplex, jsonLines, type OutputChunk } from './streams.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

interface Fixture {
  readonly client: Client;
  readonly seen: string[];
}

function frame(stream: number, text: string): Buffer {
  const head = Buffer.alloc(8);
  head[0] = stream;
  head.writeUInt32BE(Buffer.byteLength(text), 4);
  return Buffer.concat([head, Buffer.from(text)]);
}

/** A daemon that answers pings itself and everything else by `answer`; upgrades go to `taken`. */
async function daemon(
  context: TestContext,
  answer: Answer,
  taken?: (request: IncomingMessage, socket: Duplex) => void,
): Promise<Fixture> {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-client-'));
  const seen: string[] = [];
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url}`);
    response.setHeader('Api-Version', '1.45');
    if (request.url === '/_ping') response.setHeader('Ostype', 'linux').end();
    else answer(request, response);
  });
  server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
    seen.push(`${request.method} ${request.url}`);
    taken?.(request, socket);
  });
  const path = join(directory, 'd.sock');
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(path, resolve);
  await promise;
  const client = new Client({ host: `unix://${path}` });
  context.after(() => {
    client[Symbol.dispose]();
    server.close();
    server.closeAllConnections();
    rmSync(directory, { recursive: true, force: true });
  });
  return { client, seen };
}

function json(response: ServerResponse, value: unknown, status = 200): void {
  response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
}

async function collect(source: AsyncIterable<OutputChunk>): Promise<string[]> {
  const texts: string[] = [];
  for await (const { stream, data } of source) texts.push(`${stream}:${data}`);
  return texts;
}

async function rejection(promise: Promise<unknown>): Promise<Error> {
  return await promise.then(
    () => assert.fail('nothing was thrown'),
    (error: Error) => error,
  );
}

test('the version is negotiated once, downwards only', async (context) => {
  const { client, seen } = await daemon(context, (_request, response) => json(response, []));
  await client.containers.list({ all: true, filters: { label: ['a=b'] } });
  await client.images.list();
  const filters = encodeURIComponent('{"label":{"a=b":true}}');
  assert.deepEqual(seen, [
    'HEAD /_ping',
    `GET /v1.45/containers/json?all=1&filters=${filters}`,
    'GET /v1.45/images/json',
  ]);
  assert.ok(isVersionLess('1.9', '1.10') && !isVersionLess('1.51', '1.51'));
});

test('errors carry the message of the daemon and a kind', async (context) => {
  const { client } = await daemon(context, (request, response) => {
    if (request.url?.includes('plain') === true) response.writeHead(409).end('in use\n');
    else json(response, { message: 'No such container: x' }, 404);
  });
  const missing = await rejection(client.containers.inspect('x'));
  assert.deepEqual([errorKind(missing), missing.message], ['notFound', 'No such container: x']);
  const plain = await rejection(client.containers.kill('plain'));
  assert.deepEqual([errorKind(plain), plain.message], ['conflict', 'in use']);
});

test('a daemon that is not there is told about as docker does', async () => {
  using client = new Client({ host: 'unix:///nonexistent/d.sock' });
  const error = await rejection(client.system.info());
  assert.equal(errorKind(error), 'unavailable');
  assert.equal(
    error.message,
    'Cannot connect to the Docker daemon at unix:///nonexistent/d.sock. Is the docker daemon running?',
  );
});

test('a 304 answer is success', async (context) => {
  const { client } = await daemon(context, (_request, response) => response.writeHead(304).end());
  await client.containers.start('x');
});

test('names are escaped in paths and image names keep their slashes', async (context) => {
  const { client, seen } = await daemon(context, (_request, response) => json(response, {}));
  await client.containers.inspect('../x');
  await client.images.inspect('a/b:c d');
  assert.deepEqual(seen.slice(1), ['GET /v1.45/containers/..%2Fx/json', 'GET /v1.45/images/a/b:c%20d/json']);
});

test('streams of JSON lines are iterated and leaving the loop ends the request', async (context) => {
  const ended = Promise.withResolvers<void>();
  const { client } = await daemon(context, (_request, response) => {
    response.write('{"Type":"a"}\n{"Ty');
    setTimeout(() => response.write('pe":"b"}\n'), 5);
    response.on('close', () => ended.resolve());
  });
  const types: unknown[] = [];
  for await (const event of client.system.events()) {
    types.push(event.Type);
    if (types.length === 2) break;
  }
  assert.deepEqual(types, ['a', 'b']);
  await ended.promise;
});

test('an aborted signal ends a request as cancelled', async (context) => {
  const { client } = await daemon(context, () => {});
  await client.connection.version();
  const controller = new AbortController();
  const waiting = client.containers.wait('x', 'not-running', controller.signal);
  setTimeout(() => controller.abort(), 10);
  assert.equal(errorKind(await rejection(waiting)), 'cancelled');
});

test('a hijacked connection is half-closed by its input and its output is taken apart', async (context) => {
  const { client, seen } = await daemon(
    context,
    () => {},
    (_request, socket) => {
      socket.write(
        'HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
      );
      let input = '';
      socket.on('data', (chunk: Buffer) => {
        input += String(chunk);
      });
      socket.on('end', () => {
        socket.write(frame(1, `got ${input}`));
        socket.end(frame(2, 'done'));
      });
    },
  );
  using stream = await client.containers.attach('x', { stdin: true });
  assert.equal(stream.isMultiplexed, true);
  stream.duplex.end('abc');
  assert.deepEqual(await stream.text(), { stdout: 'got abc', stderr: 'done' });
  assert.equal(seen.at(-1), 'POST /v1.45/containers/x/attach?stdin=1&stdout=1&stderr=1&stream=1');
});

test('a refused upgrade throws the message of the daemon', async (context) => {
  const { client } = await daemon(
    context,
    () => {},
    (_request, socket) => {
      socket.end(
        'HTTP/1.1 404 Not Found\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: close\r\n\r\nNo such container: x\r\n',
      );
    },
  );
  const error = await rejection(client.containers.attach('x'));
  assert.deepEqual([errorKind(error), error.message], ['notFound', 'No such container: x']);
});

test('a container that was run is removed when disposed, also when its start failed', async (context) => {
  const { client, seen } = await daemon(context, (request, response) => {
    if (request.url?.includes('/create') === true) json(response, { Id: 'c1', Warnings: [] }, 201);
    else if (request.url?.includes('/start') === true && request.headers['x-fail'] === '1')
      json(response, { message: 'no' }, 500);
    else response.writeHead(204).end();
  });
  {
    await using container = await client.containers.run({ Image: 'a', name: 'n' });
    assert.equal(container.id, 'c1');
  }
  assert.deepEqual(seen.slice(1), [
    'POST /v1.45/containers/create?name=n',
    'POST /v1.45/containers/c1/start',
    'DELETE /v1.45/containers/c1?force=1&v=1',
  ]);
  using failing = new Client({ host: client.host, headers: { 'x-fail': '1' } });
  seen.length = 0;
  assert.equal((await rejection(failing.containers.run({ Image: 'a' }))).message, 'no');
  assert.equal(seen.at(-1), 'DELETE /v1.45/containers/c1?force=1&v=1');
});

test('multiplexed output survives any chunking', async () => {
  const whole = Buffer.concat([frame(1, 'hello'), frame(2, ''), frame(2, 'wörld'), frame(1, '!')]);
  for (const size of [1, 3, 7, 100]) {
    const chunks: Buffer[] = [];
    for (let at = 0; at < whole.length; at += size) chunks.push(whole.subarray(at, at + size));
    const output = await collectOutput(demultiplex(chunks as unknown as AsyncIterable<Buffer>));
    assert.deepEqual(output, { stdout: 'hello!', stderr: 'wörld' });
  }
});

test('broken multiplexed output and errors of the daemon in it are thrown', async () => {
  const feed = (data: Buffer): AsyncIterable<Buffer> => [data] as unknown as AsyncIterable<Buffer>;
  assert.equal((await rejection(collect(demultiplex(feed(frame(1, 'abc').subarray(0, 9)))))).message, 'unexpected EOF');
  assert.match(
    (await rejection(collect(demultiplex(feed(frame(3, 'oops')))))).message,
    /error from daemon in stream: oops/,
  );
  assert.match((await rejection(collect(demultiplex(feed(frame(9, 'x')))))).message, /Unrecognized input header: 9/);
  assert.deepEqual(await collect(demultiplex(feed(Buffer.alloc(0)))), []);
});

test('JSON lines need no line end at the end and skip empty lines', async () => {
  const values: unknown[] = [];
  const feed = [Buffer.from('1\n\r\n{"a"'), Buffer.from(':2}')] as unknown as AsyncIterable<Buffer>;
  for await (const value of jsonLines(feed)) values.push(value);
  assert.deepEqual(values, [1, { a: 2 }]);
});

test('addresses are parsed as docker parses them', () => {
  assert.deepEqual(parseEndpoint('unix:///a/b', undefined), { kind: 'unix', host: 'unix:///a/b', socketPath: '/a/b' });
  assert.deepEqual(parseEndpoint('tcp://h', undefined), {
    kind: 'tcp',
    host: 'tcp://h',
    hostname: 'h',
    port: 2375,
    tls: undefined,
  });
  assert.equal((parseEndpoint('tcp://[::1]:80', undefined) as { port: number }).port, 80);
  assert.equal((parseEndpoint('tcp://h', {}) as { port: number }).port, 2376);
  assert.throws(() => parseEndpoint('h:1', undefined), /unable to parse docker host `h:1`/);
});
