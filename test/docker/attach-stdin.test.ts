/** Attaching: input, its end, detach keys, signals, slow readers. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('attach and standard input', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  /** Starts a container without a network in the background; returns its name. */
  const start = async (purpose: string, flags: string[], ...command: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    await daemon.ok('run', '-d', '--net', 'none', '--name', name, ...flags, 'busybox', ...command);
    return name;
  };

  test('run -i delivers input and its end', async () => {
    const result = await daemon.docker(['run', '-i', '--rm', '--net', 'none', 'busybox', 'wc', '-c'], {
      input: 'x'.repeat(200_000),
    });
    assert.equal(result.stdout, '200000\n');
  });

  test('a large output arrives whole', async () => {
    const result = await daemon.docker([
      'run',
      '--rm',
      '--net',
      'none',
      'busybox',
      'head',
      '-c',
      '50000000',
      '/dev/zero',
    ]);
    assert.equal(result.stdoutBytes.length, 50_000_000);
  });

  test('attach sees what is printed from then on, and detaching leaves the container running', async () => {
    const name = await start('attach', ['-i'], 'sh', '-c', 'while read line; do echo "got $line"; done');
    const client = daemon.startDocker(['attach', name]);
    await new Promise((resolve) => setTimeout(resolve, 500));
    client.type('one\n');
    await client.shows(/got one/);
    client.child.kill('SIGKILL');
    await client.done;
    assert.equal(await daemon.inspect(name, '{{.State.Running}}'), 'true');
  });

  test('attach --no-stdin ends with the code of the container', async () => {
    const name = await start('code', [], 'sh', '-c', 'sleep 0.7; echo bye; exit 11');
    const result = await daemon.docker(['attach', '--no-stdin', name]);
    assert.deepEqual([result.code, result.stdout], [11, 'bye\n']);
  });

  test('a signal to the attached client reaches the process', async () => {
    const client = daemon.startDocker([
      'run',
      '--rm',
      '--net',
      'none',
      'busybox',
      'sh',
      '-c',
      'trap "echo caught; exit 5" TERM; echo ready; while :; do sleep 0.05; done',
    ]);
    await client.shows(/ready/);
    client.child.kill('SIGTERM');
    const result = await client.done;
    assert.match(result.stdout, /caught/);
    assert.equal(result.code, 5);
  });

  test('the default detach keys leave a terminal session', async () => {
    const name = daemon.name('keys');
    const client = daemon.dockerInTerminal(['run', '-it', '--net', 'none', '--name', name, 'busybox', 'sh']);
    await client.shows(/# /);
    client.type('\x10');
    client.type('\x11');
    await client.done;
    assert.equal(await daemon.inspect(name, '{{.State.Running}}'), 'true');
  });

  test('--detach-keys chooses others', async () => {
    const name = daemon.name('own-keys');
    const client = daemon.dockerInTerminal([
      'run',
      '-it',
      '--detach-keys',
      'ctrl-a,x',
      '--net',
      'none',
      '--name',
      name,
      'busybox',
      'sh',
    ]);
    await client.shows(/# /);
    client.type('\x01');
    client.type('x');
    await client.done;
    assert.equal(await daemon.inspect(name, '{{.State.Running}}'), 'true');
  });

  test('Ctrl-C in a terminal interrupts the foreground process only', async () => {
    const name = daemon.name('interrupt');
    const client = daemon.dockerInTerminal(['run', '-it', '--net', 'none', '--name', name, 'busybox', 'sh']);
    await client.shows(/# /);
    client.type('sleep 1000\n');
    await new Promise((resolve) => setTimeout(resolve, 300));
    client.type('\x03');
    await new Promise((resolve) => setTimeout(resolve, 200));
    client.type('echo still-$((1+1)); exit 3\n');
    const result = await client.done;
    assert.match(result.stdout, /still-2/);
    assert.equal(result.code, 3);
  });

  test('start -ai types into a created container', async () => {
    const name = daemon.name('start-ai');
    await daemon.ok('create', '-i', '--net', 'none', '--name', name, 'busybox', 'cat');
    const result = await daemon.docker(['start', '-ai', name], { input: 'typed' });
    assert.deepEqual([result.code, result.stdout], [0, 'typed']);
  });

  test('two clients see the same output', async () => {
    const name = await start('two', ['-i'], 'cat');
    const clients = [daemon.startDocker(['attach', name]), daemon.startDocker(['attach', name])];
    await new Promise((resolve) => setTimeout(resolve, 500));
    clients[0]?.type('shared\n');
    await Promise.all(clients.map((client) => client.shows(/shared/)));
    await daemon.ok('rm', '-f', name);
    await Promise.all(clients.map((client) => client.done));
  });

  test('attach refuses stopped and paused containers', async () => {
    const name = await start('stopped', [], 'true');
    await daemon.ok('wait', name);
    assert.match(
      (await daemon.docker(['attach', name])).stderr,
      /cannot attach to a stopped container, start it first/,
    );
  });
});
