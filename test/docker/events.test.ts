/** The event stream: which events, in which order. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('events', () => {
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

  const actions = async (name: string, since: number): Promise<string[]> => {
    const until = Math.ceil(Date.now() / 1000) + 1;
    const text = await daemon.ok(
      'events',
      '--since',
      String(since),
      '--until',
      String(until),
      '--filter',
      `container=${name}`,
      '--format',
      '{{.Type}} {{.Action}}',
    );
    return text.split('\n');
  };
  const now = (): number => Math.floor(Date.now() / 1000) - 1;

  test('a run with --rm is create, attach, start, die, destroy', async () => {
    const name = daemon.name('run');
    const since = now();
    await daemon.ok('run', '--rm', '--net', 'none', '--name', name, 'busybox', 'true');
    const seen = (await actions(name, since)).filter((line) => line.startsWith('container '));
    assert.deepEqual(seen, [
      'container create',
      'container attach',
      'container start',
      'container die',
      'container destroy',
    ]);
  });

  test('stop is kill, die, stop; restart ends with start and restart', async () => {
    const name = await start('stop', [], 'sleep', '1000');
    const since = now();
    await daemon.ok('restart', '-t', '0', name);
    await daemon.ok('stop', '-t', '0', name);
    const seen = (await actions(name, since)).map((line) => line.replace('container ', ''));
    const later = seen.slice(seen.indexOf('start') + 1);
    // Compat: die and stop come from two places of the engine and may change places.
    assert.deepEqual(
      later.filter((action) => action !== 'stop' && !action.startsWith('network')),
      ['kill', 'kill', 'die', 'start', 'restart', 'kill', 'kill', 'die'],
    );
    assert.equal(later.filter((action) => action === 'stop').length, 2);
  });

  test('pause, unpause, rename and update are told', async () => {
    const name = await start('others', [], 'sleep', '1000');
    const id = await daemon.inspect(name, '{{.Id}}');
    const since = now();
    await daemon.ok('pause', name);
    await daemon.ok('unpause', name);
    await daemon.ok('update', '-m', '32m', '--memory-swap', '64m', name);
    await daemon.ok('rename', name, `${name}-x`);
    await daemon.ok('exec', `${name}-x`, 'true');
    const seen = (await actions(id, since)).map((line) => line.trim());
    for (const action of [
      'pause',
      'unpause',
      'update',
      'rename',
      'exec_create: true',
      'exec_start: true',
      'exec_die',
    ]) {
      assert.ok(seen.includes(`container ${action}`), `${action} in ${seen.join(', ')}`);
    }
  });

  test('the die event carries the exit code, image, name and labels', async () => {
    const name = daemon.name('attributes');
    const since = now();
    await daemon.docker(['run', '--net', 'none', '--name', name, '-l', 'k=v', 'busybox', 'sh', '-c', 'exit 5']);
    const text = await daemon.ok(
      'events',
      '--since',
      String(since),
      '--until',
      String(Math.ceil(Date.now() / 1000)),
      '--filter',
      'event=die',
      '--filter',
      `container=${name}`,
      '--format',
      '{{json .Actor.Attributes}}',
    );
    const attributes = JSON.parse(text);
    assert.equal(attributes.exitCode, '5');
    assert.deepEqual([attributes.image, attributes.name, attributes.k], ['busybox', name, 'v']);
    assert.match(attributes.execDuration, /^\d+$/);
  });

  test('a live listener hears at once', async () => {
    const name = daemon.name('live');
    const listener = daemon.startDocker(['events', '--filter', `container=${name}`, '--format', '{{.Action}}']);
    await new Promise((resolve) => setTimeout(resolve, 400));
    await daemon.ok('create', '--name', name, 'busybox');
    await listener.shows(/create/);
    listener.child.kill('SIGKILL');
    await listener.done;
  });
});
