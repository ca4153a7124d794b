import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { Client, type ClientOptions } from '#client/client.ts';
import type { CreateContainerOptions } from '#client/containers.ts';
import { errorKind } from '#types/errors.ts';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { freePort } from '../harness/free-port.ts';
import { run } from '../harness/processes.ts';

let daemon: TestDaemon;
let client: Client;
before(async () => {
  daemon = await startDaemon();
  client = new Client({ host: daemon.host });
});
after(async () => {
  client?.[Symbol.dispose]();
  await daemon?.[Symbol.asyncDispose]();
});

function shell(script: string, more: CreateContainerOptions = {}): CreateContainerOptions {
  const HostConfig = { NetworkMode: 'none', ...more.HostConfig };
  return { Image: 'busybox', Cmd: ['sh', '-c', script], name: daemon.name('client'), ...more, HostConfig };
}

const failure = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(
    () => assert.fail('nothing was thrown'),
    (error: Error) => error,
  );

/** A tar of one file, made by tar itself. */
function tarOf(name: string, content: string): Buffer {
  writeFileSync(join(daemon.directory, name), content);
  return execFileSync('tar', ['-C', daemon.directory, '-c', name]);
}

async function drain<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of source) all.push(item);
  return all;
}

test('a container is gone at the end of its scope', async () => {
  let id = '';
  {
    await using container = await client.containers.run(shell('exec sleep 60'));
    id = container.id;
    assert.equal((await container.inspect()).State?.Running, true);
  }
  const error = await failure(client.containers.inspect(id));
  assert.deepEqual([errorKind(error), error.message], ['notFound', `No such container: ${id}`]);
});

test('attached input is half-closed and the output after it still arrives', async () => {
  const { Id } = await client.containers.create(
    shell('cat; echo end; echo bad >&2; exit 7', { OpenStdin: true, StdinOnce: true, AttachStdin: true }),
  );
  using stream = await client.containers.attach(Id, { stdin: true });
  const exit = client.containers.wait(Id, 'next-exit');
  await client.containers.start(Id);
  stream.duplex.end('given\n');
  assert.deepEqual(await stream.text(), { stdout: 'given\nend\n', stderr: 'bad\n' });
  assert.equal((await exit).StatusCode, 7);
  await client.containers.remove(Id);
});

test('an exec takes input, and its exit code is told', async () => {
  await using container = await client.containers.run(shell('exec sleep 60'));
  const created = await client.execs.create(container.id, { Cmd: ['sort'], AttachStdin: true, AttachStdout: true });
  using stream = await client.execs.start(created.Id);
  stream.duplex.end('b\na\n');
  assert.equal((await stream.text()).stdout, 'a\nb\n');
  const done = await client.execs.run(container.id, ['sh', '-c', 'echo o; echo e >&2; exit 5']);
  assert.deepEqual(done, { exitCode: 5, stdout: 'o\n', stderr: 'e\n' });
});

test('followed logs are iterated until a signal aborts them', async () => {
  await using container = await client.containers.run(shell('echo one; echo two >&2; exec sleep 60'));
  const controller = new AbortController();
  const seen: string[] = [];
  const following = (async () => {
    for await (const { stream, data } of container.logs({ follow: true, signal: controller.signal })) {
      seen.push(`${stream} ${data}`);
      if (seen.length === 2) controller.abort();
    }
  })();
  assert.equal(errorKind(await failure(following)), 'cancelled');
  assert.deepEqual(seen.toSorted(), ['stderr two\n', 'stdout one\n']);
});

test('events arrive while a container lives', async () => {
  const name = daemon.name('events');
  const { Id } = await client.containers.create(shell('true', { name }));
  const since = Math.floor(Date.now() / 1000) - 5;
  const actions: string[] = [];
  const reading = (async () => {
    for await (const event of client.system.events({ since, filters: { container: [Id] } })) {
      actions.push(String(event.Action));
      if (event.Action === 'die') return;
    }
  })();
  await client.containers.start(Id);
  await reading;
  assert.deepEqual(actions, ['create', 'start', 'die']);
  await client.containers.remove(Id);
});

test('stats are sampled until the loop is left', async () => {
  await using container = await client.containers.run(shell('exec sleep 60'));
  let samples = 0;
  for await (const sample of client.containers.stats(container.id)) {
    assert.ok((sample.memory_stats?.usage ?? 0) > 0);
    if (++samples === 2) break;
  }
  assert.equal((await client.containers.statsOnce(container.id, { oneShot: true })).id, container.id);
});

test('archives go in and come out', async () => {
  await using container = await client.containers.run(shell('exec sleep 60'));
  await client.containers.putArchive(container.id, '/root', Readable.from([tarOf('in.txt', 'payload')]));
  assert.equal((await client.containers.statPath(container.id, '/root/in.txt')).size, 7);
  const tar = await buffer(await client.containers.getArchive(container.id, '/root/in.txt'));
  assert.equal(String(execFileSync('tar', ['-xO', 'in.txt'], { input: tar })), 'payload');
  assert.equal(errorKind(await failure(client.containers.getArchive(container.id, '/nowhere'))), 'notFound');
});

test('an image is built, saved, removed and loaded as streams', async () => {
  const name = `${daemon.bridge.toLowerCase()}-built:1`;
  const context = tarOf('Dockerfile', 'FROM busybox\nLABEL made=here\n');
  const built = await drain(client.images.build(Readable.from([context]), { t: name }));
  assert.equal(built.find(({ error }) => error !== undefined)?.error, undefined);
  const saved = await buffer(await client.images.save([name]));
  await client.images.remove(name);
  assert.equal(errorKind(await failure(client.images.inspect(name))), 'notFound');
  const loaded = await drain(client.images.load(Readable.from([saved])));
  assert.match(loaded.map(({ stream }) => stream ?? '').join(''), /Loaded image: /);
  assert.equal((await client.images.inspect(name)).Config?.Labels?.['made'], 'here');
  await client.images.remove(name);
});

test('errors have kinds', async () => {
  await using container = await client.containers.run(shell('exec sleep 60'));
  assert.equal(errorKind(await failure(client.containers.remove(container.id))), 'conflict');
  assert.equal(errorKind(await failure(client.containers.create({ Image: '' }))), 'invalid');
  assert.equal(errorKind(await failure(client.containers.create({ Image: 'absent' }))), 'notFound');
});

test('without a daemon the text is docker’s', async () => {
  using lost = new Client({ host: 'unix:///nonexistent/x.sock' });
  const error = await failure(lost.system.info());
  assert.equal(errorKind(error), 'unavailable');
  assert.equal(
    error.message,
    'Cannot connect to the Docker daemon at unix:///nonexistent/x.sock. Is the docker daemon running?',
  );
});

test('the version is negotiated, and DOCKER_API_VERSION fixes it', async () => {
  assert.equal(await client.connection.version(), '1.51');
  process.env['DOCKER_API_VERSION'] = '1.41';
  try {
    using old = new Client({ host: daemon.host });
    assert.equal(await old.connection.version(), '1.41');
    await using container = await client.containers.run(shell('echo framed; exec sleep 60'));
    for await (const { stream, data } of old.containers.logs(container.id, { follow: true })) {
      assert.equal(`${stream} ${data}`, 'stdout framed\n');
      break;
    }
  } finally {
    delete process.env['DOCKER_API_VERSION'];
  }
  using future = new Client({ host: daemon.host, version: '9.99' });
  assert.equal(errorKind(await failure(future.system.info())), 'invalid');
});

test('the example program works', async () => {
  const root = resolve(import.meta.dirname, '../..');
  const done = await run(process.execPath, [join(root, 'examples/ts-client/main.ts')], {
    env: { DOCKER_HOST: daemon.host },
  });
  assert.equal(done.code, 0, done.stderr);
  assert.match(done.stdout, /^apple\npear\n/);
});

/** Keys of an authority, a server and a client in a directory. */
function makeCertificates(directory: string): void {
  const openssl = (...args: string[]): void => void execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...key,
    '-keyout',
    'ca-key.pem',
    '-out',
    'ca.pem',
    '-subj',
    '/CN=test authority',
    '-days',
    '2',
  );
  for (const [name, use] of [
    ['server', 'serverAuth'],
    ['client', 'clientAuth'],
  ] as const) {
    writeFileSync(join(directory, `${name}.ext`), `subjectAltName=IP:127.0.0.1\nextendedKeyUsage=${use}\n`);
    openssl('req', ...key, '-keyout', `${name}-key.pem`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    const signing = ['-CA', 'ca.pem', '-CAkey', 'ca-key.pem', '-CAcreateserial', '-extfile', `${name}.ext`];
    openssl('x509', '-req', '-in', `${name}.csr`, ...signing, '-out', `${name}.pem`, '-days', '2');
  }
}

test('TLS with client certificates carries requests and half-closed streams; strangers are refused', async (context) => {
  if (daemon.foreign) return context.skip('needs a daemon with our flags');
  const directory = daemon.directory;
  makeCertificates(directory);
  const port = await freePort();
  const file = (name: string): string => join(directory, name);
  const files = ['--tlscacert', file('ca.pem'), '--tlscert', file('server.pem'), '--tlskey', file('server-key.pem')];
  await using secure = await startDaemon({
    bridge: false,
    flags: ['-H', `tcp://127.0.0.1:${port}`, '--tlsverify', ...files],
  });
  const host = `tcp://127.0.0.1:${port}`;
  const ca = readFileSync(file('ca.pem'));
  const tls: ClientOptions = {
    host,
    tls: { ca, cert: readFileSync(file('client.pem')), key: readFileSync(file('client-key.pem')) },
  };
  using trusted = new Client(tls);
  assert.equal((await trusted.system.version()).ApiVersion, '1.51');
  await using container = await trusted.containers.run(shell('exec sleep 60'));
  const created = await trusted.execs.create(container.id, { Cmd: ['sort'], AttachStdin: true, AttachStdout: true });
  using stream = await trusted.execs.start(created.Id);
  stream.duplex.end('b\na\n');
  assert.equal((await stream.text()).stdout, 'a\nb\n');
  using stranger = new Client({ host, tls: { ca } });
  assert.equal(errorKind(await failure(stranger.system.info())), 'unavailable');
  assert.equal(secure.foreign, false);
});
