import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Listener, type ListenOptions, listen } from './listeners.ts';
import { parseListenAddress } from './listeners-address.ts';

function directoryFor(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-listen-'));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function optionsWith(warnings: string[], changes: Partial<ListenOptions> = {}): ListenOptions {
  return { group: '0', isGroupExplicit: true, tls: undefined, warn: (text) => void warnings.push(text), ...changes };
}

/** A server that answers `hello`. */
function hello(): ReturnType<typeof createServer> {
  return createServer((_request, response) => response.end('hello'));
}

async function fetchText(target: { socketPath: string } | { host: string; port: number | undefined }): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  get({ ...target, agent: false, path: '/' } as object, (response) => {
    response.setEncoding('utf8');
    let text = '';
    response.on('data', (chunk: string) => {
      text += chunk;
    });
    response.on('end', () => resolve(text));
  }).on('error', reject);
  return await promise;
}

test('a unix socket gets its directory, mode and group and goes away with its listener', async (context) => {
  const path = join(directoryFor(context), 'deep/er/api.sock');
  {
    await using _listener: Listener = await listen({ protocol: 'unix', path }, hello(), optionsWith([]));
    assert.equal(statSync(path).mode & 0o777, 0o660);
    assert.equal(await fetchText({ socketPath: path }), 'hello');
  }
  assert.equal(existsSync(path), false);
});

test('a stale socket is replaced, a live one and a file are left alone', async (context) => {
  const directory = directoryFor(context);
  const stale = join(directory, 'stale.sock');
  const child = spawn(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(stale)},()=>process.kill(process.pid,'SIGKILL'))`,
  ]);
  await new Promise((resolve) => child.once('exit', resolve));
  assert.ok(existsSync(stale));
  {
    await using _listener: Listener = await listen({ protocol: 'unix', path: stale }, hello(), optionsWith([]));
    assert.equal(await fetchText({ socketPath: stale }), 'hello');
    await assert.rejects(
      listen({ protocol: 'unix', path: stale }, hello(), optionsWith([])),
      /another process is listening on it/,
    );
  }
  const file = join(directory, 'file');
  writeFileSync(file, 'x');
  await assert.rejects(listen({ protocol: 'unix', path: file }, hello(), optionsWith([])), /not a socket/);
  assert.ok(existsSync(file));
});

test('a missing group is an error only when it was asked for', async (context) => {
  const path = join(directoryFor(context), 'a.sock');
  const group = 'no-such-group-here';
  await assert.rejects(
    listen({ protocol: 'unix', path }, hello(), optionsWith([], { group })),
    /group no-such-group-here not found/,
  );
  const warnings: string[] = [];
  await using _listener: Listener = await listen(
    { protocol: 'unix', path },
    hello(),
    optionsWith(warnings, { group, isGroupExplicit: false }),
  );
  assert.match(warnings[0] ?? '', /group no-such-group-here not found/);
});

test('TCP without TLS works with a warning and a taken port is refused', async () => {
  const warnings: string[] = [];
  const address = { protocol: 'tcp', host: '127.0.0.1', port: 0 } as const;
  await using listener: Listener = await listen(address, hello(), optionsWith(warnings));
  assert.equal(warnings.length, 1);
  assert.equal(await fetchText({ host: '127.0.0.1', port: listener.port }), 'hello');
  const taken = { ...address, port: listener.port ?? 0 };
  await assert.rejects(
    listen(taken, hello(), optionsWith([])),
    /failed to load listeners: listen tcp 127\.0\.0\.1:\d+: .*EADDRINUSE/,
  );
});

test('missing TLS files are named', async () => {
  const tls = { ca: '/nonexistent/ca', cert: '/nonexistent/cert', key: '/nonexistent/key', verify: true };
  const address = { protocol: 'tcp', host: '127.0.0.1', port: 0 } as const;
  await assert.rejects(
    listen(address, hello(), optionsWith([], { tls })),
    /could not read server certificate "\/nonexistent\/cert"/,
  );
});

test('a socket passed by systemd is used', async (context) => {
  const path = join(directoryFor(context), 'fd.sock');
  const module = JSON.stringify(new URL('listeners.ts', import.meta.url).href);
  const daemon = `
    const { listen } = await import(${module});
    const { createServer } = await import('node:http');
    const server = createServer((_request, response) => response.end('hello', () => setTimeout(() => process.exit(0), 50)));
    await listen({ protocol: 'fd', descriptor: undefined }, server, {});
    setTimeout(() => process.exit(1), 10_000);
    console.log('ready');`;
  // Stands in for systemd: opens the socket, then blocks, so that only the daemon accepts.
  const launcher = `
    const server = require('net').createServer().listen(${JSON.stringify(path)}, () => {
      require('child_process').spawnSync(process.execPath, ['--input-type=module', '-e', ${JSON.stringify(daemon)}], {
        env: { ...process.env, LISTEN_FDS: '1' }, stdio: ['ignore', 'inherit', 'inherit', server._handle.fd] });
      process.exit();
    });`;
  const child = spawn(process.execPath, ['-e', launcher], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  assert.equal(await fetchText({ socketPath: path }), 'hello');
  await new Promise((resolve) => child.once('exit', resolve));
});

test('addresses are parsed as dockerd parses them', () => {
  const parse = (text: string): unknown => parseListenAddress(text, 'unix:///run/x.sock', false);
  assert.deepEqual(parse('unix://'), { protocol: 'unix', path: '/run/x.sock' });
  assert.deepEqual(parse('tcp://:7'), { protocol: 'tcp', host: 'localhost', port: 7 });
  assert.deepEqual(parse('tcp://[::1]:7'), { protocol: 'tcp', host: '::1', port: 7 });
  assert.deepEqual(parse('0.0.0.0'), { protocol: 'tcp', host: '0.0.0.0', port: 2375 });
  assert.deepEqual(parse('fd://4'), { protocol: 'fd', descriptor: 4 });
  for (const text of ['npipe://x', 'tcp://a:99999', 'tcp://a:b', 'x://'])
    assert.throws(() => parse(text), /invalid bind address format/);
});
