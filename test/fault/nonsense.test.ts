/** What hostile or broken clients send to the socket: the daemon answers or hangs up, lives, and stays small. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'needs a daemon process of our own; GANTRY_TEST_HOST names another engine' } : {};
/** The daemon may grow by this much under all of it together. */
const MAX_GROWTH_KIB = 150_000;

function residentKib(daemon: TestDaemon): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8'))?.[1]);
}

interface Conversation {
  readonly socket: Socket;
  readonly answer: () => string;
  readonly closed: Promise<void>;
}

function converse(daemon: TestDaemon): Conversation {
  const socket = connect(daemon.socketPath);
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    if (text.length < 4096) text += chunk.toString('latin1');
  });
  socket.on('error', () => undefined);
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  return { socket, answer: () => text, closed };
}

/** Sends as much as the daemon takes, up to a size, obeying back-pressure. */
async function pour(conversation: Conversation, chunk: Buffer, sizeBytes: number): Promise<void> {
  const { socket, closed } = conversation;
  for (let sent = 0; sent < sizeBytes && !socket.destroyed; sent += chunk.length) {
    if (socket.write(chunk)) continue;
    const drained = new Promise<void>((resolve) => socket.once('drain', () => resolve()));
    await Promise.race([drained, closed, delay(2_000)]);
  }
}

test('nonsense on the socket never ends the daemon nor lets it grow', options, async (t) => {
  await using daemon = await startDaemon({ bridge: false, busybox: false });
  const pid = daemon.pid;
  const before = residentKib(daemon);
  const check = async (what: string): Promise<void> => {
    assert.equal((await daemon.api('GET', '/_ping')).text, 'OK', what);
    const growth = residentKib(daemon) - before;
    t.diagnostic(`${what}: grew by ${growth} KiB`);
    assert.ok(growth < MAX_GROWTH_KIB, `${what}: the daemon grew by ${growth} KiB`);
  };

  for (let index = 0; index < 50; index += 1) {
    const random = converse(daemon);
    random.socket.end(randomBytes(2_000));
    await random.closed;
  }
  await check('random bytes');

  const headers = converse(daemon);
  headers.socket.write('GET /_ping HTTP/1.1\r\nHost: x\r\n');
  await pour(headers, Buffer.from(`X-A: ${'a'.repeat(8_000)}\r\n`), 20_000_000);
  await Promise.race([headers.closed, delay(2_000)]);
  // The answer may be lost when the daemon hangs up on what it has not read; going on to read it would be wrong.
  assert.match(headers.answer(), /^(HTTP\/1\.1 4(31|00)|$)/);
  assert.ok(headers.socket.destroyed, 'the connection is ended');
  headers.socket.destroy();
  await check('endless headers');

  const slow = Array.from({ length: 200 }, () => converse(daemon));
  for (const one of slow) one.socket.write('POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Le');
  await check('200 slow clients');
  for (const one of slow) one.socket.destroy();

  for (const path of ['/containers/create', '/auth', '/networks/create', '/volumes/create', '/containers/x/exec']) {
    const endless = converse(daemon);
    endless.socket.write(
      `POST ${path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    const payload = Buffer.alloc(0x10000, '[');
    await pour(endless, Buffer.concat([Buffer.from('10000\r\n'), payload, Buffer.from('\r\n')]), 100_000_000);
    endless.socket.destroy();
  }
  await check('endless bodies');

  const deep = `${'{"a":'.repeat(200_000)}1${'}'.repeat(200_000)}`;
  for (const body of [
    deep,
    '['.repeat(1_000_000),
    '{"HostConfig":',
    '"\\ud800"',
    `{"Env":[${'"a=b",'.repeat(100_000)}"c"]}`,
  ]) {
    const answer = await daemon.api('POST', '/containers/create', body);
    assert.ok(answer.status >= 400 && answer.status < 600, `${body.slice(0, 20)}: ${answer.status}`);
  }
  await check('deep and broken JSON');

  for (const path of [
    '/%',
    '/containers/%00/json',
    '/../../etc/passwd',
    `/${'a'.repeat(50_000)}`,
    '/v1.51//json',
    '/containers/json?filters=%7B%22a',
  ]) {
    const answer = await daemon.api('GET', path);
    assert.ok(answer.status >= 300 && answer.status < 500, `${path.slice(0, 40)}: ${answer.status}`);
  }
  for (let index = 0; index < 20; index += 1) {
    const upgrade = converse(daemon);
    upgrade.socket.write(
      'POST /exec/none/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 5\r\n\r\n',
    );
    upgrade.socket.destroy();
  }
  await check('strange paths and cut-off upgrades');
  assert.equal(daemon.pid, pid);
  assert.doesNotMatch(daemon.log, /uncaught|unhandled/);
});
