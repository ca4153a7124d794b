import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { GantryError } from '#types/errors.ts';
import { OPERATIONS } from '#wire/engine-schema.ts';
import { listen } from '../listeners.ts';
import { bodyBytes } from './body.ts';
import { notBuilt } from './not-built.ts';
import type { Route, RouteContext } from './route.ts';
import { ApiServer } from './server.ts';

interface Fixture {
  readonly path: string;
  readonly server: ApiServer;
  readonly errors: string[];
}

const ROUTES: Route[] = [
  { method: 'GET', path: '/_ping', handler: (context) => context.text('OK') },
  {
    method: 'GET',
    path: '/echo/{id}',
    handler: (context) => context.json({ id: context.params['id'], size: context.query.flag('size') }),
  },
  {
    method: 'GET',
    path: '/images/{name:.*}/json',
    handler: (context) => context.json({ name: context.params['name'] }),
  },
  { method: 'GET', path: '/images/json', handler: (context) => context.json([]) },
  {
    method: 'POST',
    path: '/containers/create',
    handler: async (context) => context.json(await context.body('ContainerCreateRequest'), 201),
  },
  {
    method: 'GET',
    path: '/fail/{kind}',
    handler: (context) => {
      if (context.params['kind'] === 'bug') throw new TypeError('boom');
      throw new GantryError(context.params['kind'] as 'invalid', 'it failed');
    },
  },
  { method: 'POST', path: '/containers/{id}/attach', handler: echoHijack },
  { method: 'POST', path: '/exec/{id}/start', handler: echoExec },
  { method: 'GET', path: '/containers/{id}/attach/ws', handler: echoWebSocket },
  { method: 'POST', path: '/stream', handler: refuseStream },
  { method: 'GET', path: '/lines', handler: sendLines },
  { method: 'GET', path: '/wait', handler: waitForAbort },
  { method: 'GET', path: '/bytes', handler: (context) => context.bytes('application/x-tar', source(context)) },
  { method: 'GET', path: '/number', handler: (context) => context.json(context.query.integer('n')) },
  { method: 'GET', path: '/filtered', handler: (context) => context.json([...context.query.filters(['label'])]) },
  { method: 'GET', path: '/newer', since: 44, handler: (context) => context.empty(204) },
];

async function refuseStream(context: RouteContext): Promise<void> {
  for await (const _ of bodyBytes(context.request)) throw new GantryError('invalid', 'not an archive');
}

async function echoHijack(context: RouteContext): Promise<void> {
  if (context.params['id'] === 'missing') throw new GantryError('notFound', 'No such container: missing');
  const client = await context.hijack({ contentType: 'application/vnd.docker.multiplexed-stream' });
  for await (const chunk of client.iterator({ destroyOnReturn: false })) client.write(String(chunk).toUpperCase());
  client.end('bye');
}

async function echoExec(context: RouteContext): Promise<void> {
  const options = await context.optionalBody<{ Tty?: boolean }>('ExecStartConfig');
  const client = await context.hijack({ contentType: 'application/vnd.docker.raw-stream' });
  client.write(JSON.stringify(options));
  for await (const chunk of client.iterator({ destroyOnReturn: false })) client.write(String(chunk).toUpperCase());
}

async function echoWebSocket(context: RouteContext): Promise<void> {
  const client = await context.websocket();
  for await (const chunk of client.iterator({ destroyOnReturn: false })) client.write(chunk);
}

async function sendLines(context: RouteContext): Promise<void> {
  const lines = context.jsonLines();
  for (let line = 0; line < 3; line++) await lines.write({ line });
  lines.end();
}

let abortsSeen = 0;
async function waitForAbort(context: RouteContext): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  context.signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
  abortsSeen++;
  throw context.signal.reason;
}

async function* source(context: RouteContext): AsyncGenerator<Buffer> {
  if (context.query.flag('early')) throw new GantryError('notFound', 'nothing here');
  yield Buffer.from('one');
  await delay(40);
  if (context.query.flag('late')) throw new GantryError('system', 'broke half way');
  yield Buffer.from('two');
}

async function serve(context: TestContext): Promise<Fixture> {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-http-'));
  const path = join(directory, 'api.sock');
  const errors: string[] = [];
  const log = { debug: () => {}, error: (message: string) => void errors.push(message) };
  const server = new ApiServer({ routes: [...ROUTES, ...notBuilt(ROUTES)], engineVersion: '28.5.2', log });
  await listen({ protocol: 'unix', path }, server.createListener(), {
    group: '0',
    isGroupExplicit: true,
    tls: undefined,
    warn: () => {},
  });
  context.after(async () => {
    await server.close(200);
    rmSync(directory, { recursive: true, force: true });
  });
  return { path, server, errors };
}

async function readToEnd(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('latin1');
}

/** Sends raw text and reads until the server closes. */
async function raw(fixture: Fixture, text: string): Promise<string> {
  const socket = connect({ path: fixture.path, allowHalfOpen: true });
  socket.write(text);
  return await readToEnd(socket);
}

interface Answer {
  readonly status: number;
  readonly head: string;
  readonly body: string;
}

function split(text: string): Answer {
  const at = text.indexOf('\r\n\r\n');
  const head = text.slice(0, at);
  return { status: Number(head.split(' ')[1]), head, body: text.slice(at + 4) };
}

async function get(fixture: Fixture, path: string, method = 'GET', extra = ''): Promise<Answer> {
  return split(await raw(fixture, `${method} ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${extra}\r\n`));
}

async function post(fixture: Fixture, path: string, body: string, type = 'application/json'): Promise<Answer> {
  const header = type === '' ? '' : `Content-Type: ${type}\r\n`;
  const head = `POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${header}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n`;
  return split(await raw(fixture, head + body));
}

/** Reads from a socket until `text` has arrived. */
async function readUntil(socket: Socket, text: string): Promise<string> {
  let seen = '';
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const onData = (chunk: Buffer): void => {
    seen += chunk.toString('latin1');
    if (seen.includes(text)) resolve(seen);
  };
  socket.on('data', onData);
  socket.once('close', () => reject(new Error(`closed after ${JSON.stringify(seen)}`)));
  const result = await promise;
  socket.off('data', onData);
  return result;
}

test('every answer carries the engine headers', async (context) => {
  const fixture = await serve(context);
  for (const path of ['/_ping', '/v1.24/_ping', '/nope', '/fail/invalid']) {
    const { head } = await get(fixture, path);
    assert.match(head, /\r\nApi-Version: 1\.51\r\n/);
    assert.match(head, /\r\nDocker-Experimental: false\r\n/);
    assert.match(head, /\r\nOstype: linux\r\n/);
    assert.match(head, /\r\nServer: Docker\/28\.5\.2 \(linux\)\r\n/);
  }
});

test('versions outside of the range are refused with the texts of dockerd', async (context) => {
  const fixture = await serve(context);
  const old = await get(fixture, '/v1.23/_ping');
  assert.equal(old.status, 400);
  assert.equal(
    old.body,
    'client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n',
  );
  const newer = await get(fixture, '/v1.99/_ping');
  assert.deepEqual(JSON.parse(newer.body), {
    message: 'client version 1.99 is too new. Maximum supported API version is 1.51',
  });
  const since = await get(fixture, '/v1.43/newer');
  assert.deepEqual(JSON.parse(since.body), { message: 'GET /newer requires minimum API version 1.44' });
  assert.equal((await get(fixture, '/v1.44/newer')).status, 204);
});

test('paths are matched after decoding and names may contain slashes', async (context) => {
  const fixture = await serve(context);
  const name = async (path: string): Promise<unknown> => JSON.parse((await get(fixture, path)).body);
  assert.deepEqual(await name('/v1.51/images/a/b/c:1/json'), { name: 'a/b/c:1' });
  assert.deepEqual(await name('/images/a%2Fb%3A1/json'), { name: 'a/b:1' });
  assert.deepEqual(await name('/images/json'), []);
  assert.deepEqual(await name('/images/json/json'), { name: 'json' });
  assert.deepEqual(await name('/echo/x?size=None'), { id: 'x', size: false });
  assert.deepEqual(await name('/echo/x?size=yes'), { id: 'x', size: true });
  const redirected = await get(fixture, '/v1.51//echo/../_ping?a=1');
  assert.equal(redirected.status, 301);
  assert.match(redirected.head, /\r\nLocation: \/v1\.51\/_ping\?a=1\r\n/);
});

test('unknown paths and wrong methods are page not found', async (context) => {
  const fixture = await serve(context);
  for (const [method, path] of [
    ['GET', '/nope'],
    ['DELETE', '/_ping'],
    ['GET', '/v1.51/'],
    ['PATCH', '/_ping'],
  ] as const) {
    const answer = await get(fixture, path, method);
    assert.equal(answer.status, 404, `${method} ${path}`);
    assert.equal(answer.body, '{"message":"page not found"}\n');
  }
  assert.equal((await get(fixture, '/v1.51/anything', 'OPTIONS')).status, 200);
});

test('operations without a route answer 501 with their name', async (context) => {
  const fixture = await serve(context);
  for (const operation of OPERATIONS) {
    if (operation.method === 'HEAD') continue;
    const path = operation.path.replaceAll(/\{\w+\}/g, 'x');
    if (
      ROUTES.some(
        (route) =>
          route.method === operation.method &&
          new RegExp(`^${route.path.replaceAll(/\{\w+(:\.\*)?\}/g, '[^/]+')}$`).test(path),
      )
    )
      continue;
    const answer = await get(fixture, path, operation.method);
    assert.equal(answer.status, 501, operation.id);
    assert.match(answer.body, new RegExp(`"${operation.id} is not implemented by this version of Gantry"`));
  }
});

test('error kinds become statuses and foreign errors are 500 and logged', async (context) => {
  const fixture = await serve(context);
  const expected = { invalid: 400, unauthorized: 401, forbidden: 403, notFound: 404, conflict: 409, system: 500 };
  for (const [kind, status] of Object.entries(expected)) {
    const answer = await get(fixture, `/fail/${kind}`);
    assert.equal(answer.status, status);
    assert.deepEqual(JSON.parse(answer.body), { message: 'it failed' });
  }
  const unchanged = await get(fixture, '/fail/notModified');
  assert.deepEqual([unchanged.status, unchanged.body], [304, '']);
  assert.equal((await get(fixture, '/fail/bug')).body, '{"message":"boom"}\n');
  assert.ok(fixture.errors.includes('Handler for GET /fail/bug returned error: boom'));
});

test('bodies are judged by content type, size and grammar', async (context) => {
  const fixture = await serve(context);
  const message = async (body: string, type?: string): Promise<[number, string]> => {
    const answer = await post(fixture, '/containers/create', body, type);
    return [answer.status, (JSON.parse(answer.body) as { message: string }).message];
  };
  assert.equal(
    (await post(fixture, '/containers/create', '{"image":"a"}', 'Application/JSON; charset=utf-8')).status,
    201,
  );
  assert.deepEqual(await message('{}', 'text/plain'), [
    400,
    "unsupported Content-Type header (text/plain): must be 'application/json'",
  ]);
  assert.deepEqual(await message('{}', ''), [400, 'malformed Content-Type header (): mime: no media type']);
  assert.deepEqual(await message('{}', 'json'), [
    400,
    "unsupported Content-Type header (json): must be 'application/json'",
  ]);
  assert.deepEqual(await message(''), [400, 'invalid JSON: got EOF while reading request body']);
  assert.deepEqual(await message('{'), [400, 'invalid JSON: unexpected EOF']);
  assert.deepEqual(await message('{}{}'), [400, 'unexpected content after JSON']);
  assert.equal((await message(`"${'x'.repeat(17 * 1024 * 1024)}"`))[0], 400);
});

test('a streamed body that is refused before its end still gets an answer', async (context) => {
  const fixture = await serve(context);
  const answer = await post(fixture, '/stream', 'x'.repeat(200_000), 'application/x-tar');
  assert.deepEqual([answer.status, answer.body], [400, '{"message":"not an archive"}\n']);
});

test('query parameters are read as Go reads them', async (context) => {
  const fixture = await serve(context);
  const body = async (path: string): Promise<unknown> => JSON.parse((await get(fixture, path)).body);
  assert.equal(await body('/number?n=-5'), -5);
  assert.equal(await body('/number'), 0);
  assert.deepEqual(await body('/number?n=a'), { message: 'strconv.ParseInt: parsing "a": invalid syntax' });
  assert.deepEqual(await body('/number?n=99999999999999999999'), {
    message: 'strconv.ParseInt: parsing "99999999999999999999": value out of range',
  });
  assert.deepEqual(await body('/number?n=%zz'), { message: 'invalid URL escape "%zz"' });
  const filters = (value: string): Promise<unknown> => body(`/filtered?filters=${encodeURIComponent(value)}`);
  assert.deepEqual(await filters('{"label":{"a":true,"b":true}}'), [['label', ['a', 'b']]]);
  assert.deepEqual(await filters('{"label":["a"]}'), [['label', ['a']]]);
  assert.deepEqual(await filters('{"nope":["a"]}'), { message: "invalid filter 'nope'" });
  assert.deepEqual(await filters('{"label":"a"}'), { message: 'invalid filter' });
  assert.deepEqual(await filters('{'), { message: 'invalid filter' });
});

test('an upgrade is answered with the head of dockerd and can be half-closed', async (context) => {
  const fixture = await serve(context);
  const socket = connect({ path: fixture.path, allowHalfOpen: true });
  socket.write('POST /v1.51/containers/a/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
  const head = await readUntil(socket, '\r\n\r\n');
  assert.equal(
    head,
    'HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
  );
  socket.write('hello');
  assert.equal(await readUntil(socket, 'HELLO'), 'HELLO');
  socket.end();
  assert.equal(await readToEnd(socket), 'bye');
});

test('a hijack without an upgrade header answers 200 and is raw both ways', async (context) => {
  const fixture = await serve(context);
  const socket = connect({ path: fixture.path, allowHalfOpen: true });
  socket.write('POST /v1.51/containers/a/attach HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n');
  const head = await readUntil(socket, '\r\n\r\n');
  assert.equal(head, 'HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n');
  socket.write('hello');
  assert.equal(await readUntil(socket, 'HELLO'), 'HELLO');
  socket.end();
  assert.equal(await readToEnd(socket), 'bye');
});

test('the body of an upgrade request is read before the connection is taken over', async (context) => {
  const fixture = await serve(context);
  const body = '{"Tty":true}';
  const socket = connect({ path: fixture.path, allowHalfOpen: true });
  socket.write(
    `POST /exec/a/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  assert.match(await readUntil(socket, '{"Tty":true}'), /^HTTP\/1\.1 101 UPGRADED\r\n[\s\S]*Api-Version: 1\.51\r\n/);
  socket.write('abc');
  assert.equal(await readUntil(socket, 'ABC'), 'ABC');
  socket.end();
  assert.equal(await readToEnd(socket), '');
});

test('the body of an upgrade request may come after its head', async (context) => {
  const fixture = await serve(context);
  const socket = connect({ path: fixture.path, allowHalfOpen: true });
  socket.write(
    'POST /exec/a/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n',
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  socket.write('{"Tty":true}');
  assert.match(await readUntil(socket, '{"Tty":true}'), /^HTTP\/1\.1 101 UPGRADED\r\n/);
  socket.write('abc');
  assert.equal(await readUntil(socket, 'ABC'), 'ABC');
  socket.end();
  assert.equal(await readToEnd(socket), '');
});

test('a failing upgrade gets an ordinary error and the connection ends', async (context) => {
  const fixture = await serve(context);
  const upgrade = 'Connection: Upgrade\r\nUpgrade: tcp\r\n';
  const attach = split(await raw(fixture, `POST /containers/missing/attach HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n`));
  assert.equal(attach.status, 404);
  assert.match(attach.head, /Content-Type: application\/vnd\.docker\.raw-stream/);
  assert.match(attach.body, /No such container: missing/);
  const old = split(await raw(fixture, `POST /v1.99/exec/a/start HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n`));
  assert.equal(old.status, 400);
});

test('an upgrade header where nothing can be upgraded is ignored', async (context) => {
  const fixture = await serve(context);
  const text =
    'GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n';
  const socket = connect({ path: fixture.path, allowHalfOpen: true });
  socket.write(text);
  assert.match(await readUntil(socket, 'OK'), /^HTTP\/1\.1 200 OK/);
  socket.destroy();
});

test('websocket clients exchange messages of any size, pings and a closing handshake', async (context) => {
  const fixture = await serve(context);
  const socket = connect({ path: fixture.path, allowHalfOpen: true });
  socket.write(
    'GET /containers/a/attach/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  );
  assert.match(await readUntil(socket, '\r\n\r\n'), /Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n/);
  const send = (opcode: number, payload: Buffer): void => {
    const mask = randomBytes(4);
    const masked = payload.map((byte, index) => byte ^ (mask[index & 3] ?? 0));
    const length =
      payload.length < 126
        ? Buffer.from([0x80 | payload.length])
        : Buffer.from([0xfe, payload.length >> 8, payload.length & 0xff]);
    socket.write(Buffer.concat([Buffer.from([0x80 | opcode]), length, mask, masked]));
  };
  send(2, Buffer.from('hi'));
  assert.equal(await readUntil(socket, 'hi'), '\x82\x02hi');
  send(9, Buffer.from('p'));
  assert.equal(await readUntil(socket, 'p'), '\x8a\x01p');
  send(1, Buffer.from(`${'x'.repeat(60_000)}!`));
  const big = await readUntil(socket, '!');
  assert.ok(big.length > 60_000);
  send(8, Buffer.from([3, 232]));
  assert.equal(await readToEnd(socket), '\x88\x02\x03\xe8');
});

test('a websocket frame without a mask closes the connection', async (context) => {
  const fixture = await serve(context);
  const socket = connect({ path: fixture.path, allowHalfOpen: true });
  socket.write(
    'GET /containers/a/attach/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  );
  await readUntil(socket, '\r\n\r\n');
  socket.write(Buffer.from([0x82, 1, 65]));
  const rest = await readToEnd(socket).catch(() => '');
  assert.ok(rest === '' || rest.startsWith('\x88'));
});

test('JSON lines and byte streams arrive chunked, and a failing source breaks the answer off', async (context) => {
  const fixture = await serve(context);
  assert.match((await get(fixture, '/lines')).body, /\{"line":0\}\n[\s\S]*\{"line":2\}\n/);
  const bytes = await get(fixture, '/bytes');
  assert.match(bytes.head, /Content-Type: application\/x-tar/);
  assert.match(bytes.body, /one[\s\S]*two[\s\S]*0\r\n\r\n$/);
  assert.equal((await get(fixture, '/bytes?early=1')).status, 404);
  const broken = await get(fixture, '/bytes?late=1').catch(() => undefined);
  assert.ok(broken === undefined || !broken.body.endsWith('0\r\n\r\n'));
});

test('a client that goes away aborts its handler', async (context) => {
  const fixture = await serve(context);
  const before = abortsSeen;
  const socket = connect(fixture.path);
  socket.write('GET /wait HTTP/1.1\r\nHost: x\r\n\r\n');
  while (fixture.server.activeRequests === 0) await delay(5);
  socket.destroy();
  while (fixture.server.activeRequests > 0) await delay(5);
  assert.equal(abortsSeen, before + 1);
});

test('closing ends long polls within the time allowed', async (context) => {
  const fixture = await serve(context);
  const answer = get(fixture, '/wait');
  while (fixture.server.activeRequests === 0) await delay(5);
  const start = performance.now();
  await fixture.server.close(2000);
  assert.ok(performance.now() - start < 1900);
  assert.equal((await answer).status, 503);
});

test('nonsense on the socket is answered with 400 and the server goes on', async (context) => {
  const fixture = await serve(context);
  const nonsense = [
    'hello\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01\x00',
    'GET / HTTP/9.9\r\n\r\n',
    'GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n',
    'GET /_ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
    'POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    'GET /%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
  ];
  for (const text of nonsense) {
    const answer = split(await raw(fixture, text));
    assert.ok(answer.status >= 400 && answer.status < 500, `${JSON.stringify(text)}: ${answer.head}`);
  }
  const huge = `GET /_ping HTTP/1.1\r\nHost: x\r\nX-A: ${'a'.repeat(1100 * 1024)}\r\n\r\n`;
  assert.equal(split(await raw(fixture, huge).catch(() => 'HTTP/1.1 431 \r\n\r\n')).status, 431);
  for (let round = 0; round < 50; round++)
    await raw(fixture, `${randomBytes(64).toString('latin1')}\r\n\r\n`).catch(() => '');
  const torn = connect(fixture.path);
  torn.write(
    'POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
  );
  await delay(20);
  torn.destroy();
  assert.equal((await get(fixture, '/_ping')).body, 'OK');
});
