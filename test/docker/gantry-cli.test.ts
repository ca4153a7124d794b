/** The container life cycle through `gantry`, as through `docker`. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { eventually, Running, run, startInTerminal } from '../harness/processes.ts';

const GANTRY = join(import.meta.dirname, '../../bin/gantry');

describe('gantry', () => {
  let daemon: TestDaemon;
  let work: string;
  before(async () => {
    daemon = await startDaemon();
    work = mkdtempSync(join(tmpdir(), 'gantry-cli-'));
  });
  after(async () => {
    await daemon[Symbol.asyncDispose]();
    rmSync(work, { recursive: true, force: true });
  });

  const environment = (): Record<string, string> => ({ DOCKER_HOST: daemon.host, DOCKER_CONFIG: join(work, 'config') });
  const ok = async (...args: string[]): Promise<string> => {
    const result = await daemon.gantry(args);
    assert.equal(result.code, 0, `gantry ${args.join(' ')}: ${result.stderr}${result.stdout}`);
    return result.stdout.replace(/\n$/, '');
  };

  test('runs, shows, changes and removes a container', async () => {
    const name = daemon.name('life');
    const id = await ok(
      'run',
      '-d',
      '--name',
      name,
      '-p',
      '127.0.0.1::80',
      'busybox',
      'sh',
      '-c',
      'echo page >/index.html; httpd -h /; echo up; sleep 1000',
    );
    assert.match(id, /^[0-9a-f]{64}$/);
    assert.equal(await ok('ps', '--no-trunc', '-q', '-f', `name=${name}`), id);
    await eventually(async () => (await ok('logs', name)) === 'up');
    const address = await ok('port', name, '80');
    assert.equal(await (await fetch(`http://${address}/`)).text(), 'page\n');
    assert.equal(await ok('inspect', '-f', '{{.State.Running}} {{.Config.Image}}', name), 'true busybox');
    assert.match(await ok('stats', '--no-stream', name), new RegExp(name));
    assert.match(await ok('top', name), /sleep 1000/);
    await ok('pause', name);
    assert.equal(await ok('inspect', '-f', '{{.State.Status}}', name), 'paused');
    await ok('unpause', name);
    await ok('update', '--pids-limit', '50', name);
    await ok('restart', '-t', '0', name);
    await ok('rename', name, `${name}-2`);
    writeFileSync(join(work, 'file'), 'copied');
    await ok('cp', join(work, 'file'), `${name}-2:/file`);
    assert.equal(await ok('exec', `${name}-2`, 'cat', '/file'), 'copied');
    await ok('commit', `${name}-2`, `${name}-image`);
    await ok('stop', '-t', '0', `${name}-2`);
    assert.equal(await ok('wait', `${name}-2`), '137');
    await ok('export', '-o', join(work, 'export.tar'), `${name}-2`);
    await ok('import', join(work, 'export.tar'), `${name}-imported`);
    await ok('save', '-o', join(work, 'save.tar'), `${name}-image`);
    await ok('rm', `${name}-2`);
    await ok('rmi', `${name}-image`);
    await ok('load', '-i', join(work, 'save.tar'));
    assert.equal(await ok('run', '--rm', `${name}-image`, 'cat', '/file'), 'copied');
    assert.match(await ok('images'), new RegExp(`${name}-imported`));
    const until = String(Math.floor(Date.now() / 1000) + 1);
    assert.match(await ok('events', '--since', '10m', '--until', until, '-f', `container=${id}`), /container destroy/);
  });

  test('exits with docker’s codes', async () => {
    const code = async (...args: string[]): Promise<number> => (await daemon.gantry(['run', '--rm', ...args])).code;
    assert.equal(await code('busybox', 'sh', '-c', 'exit 3'), 3);
    assert.equal(await code('--no-such-flag', 'busybox'), 125);
    assert.equal(await code('busybox', '/etc'), 126);
    assert.equal(await code('busybox', 'no-such-command'), 127);
    assert.equal(await code('busybox', 'sh', '-c', 'sh -c "kill -9 \\$\\$"; exit $?'), 137);
  });

  test('a terminal reaches exec, and the detach keys leave the container running', async () => {
    const name = daemon.name('terminal');
    await ok('run', '-dit', '--name', name, 'busybox', 'sh');
    const exec = startInTerminal(
      GANTRY,
      ['exec', '-it', name, 'sh', '-c', 'test -t 0 && test -t 1 && echo a-terminal'],
      { env: environment() },
    );
    assert.match((await exec.done).stdout, /a-terminal/);
    const attached = startInTerminal(GANTRY, ['attach', name], { env: environment() });
    attached.type('echo ty""ped\n');
    await attached.shows(/^typed/m);
    attached.type('\u0010\u0011');
    await attached.done;
    assert.equal(await ok('inspect', '-f', '{{.State.Running}}', name), 'true');
    await ok('rm', '-f', name);
  });

  test('signals to gantry run reach the process', async () => {
    const name = daemon.name('signal');
    const running = new Running(
      GANTRY,
      [
        'run',
        '--rm',
        '--name',
        name,
        'busybox',
        'sh',
        '-c',
        'trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.1; done',
      ],
      { env: environment() },
    );
    await running.shows(/ready/);
    running.child.kill('SIGTERM');
    const result = await running.done;
    assert.equal(result.code, 9, result.stderr);
    assert.match(result.stdout, /caught/);
  });

  test('contexts travel as archives, with their keys', async () => {
    const env = { DOCKER_HOST: '', DOCKER_CONFIG: join(work, 'travelling') };
    const gantry = (...args: string[]) => daemon.gantry(args, { env, cwd: work });
    const key = join(work, 'some-ca');
    writeFileSync(key, 'a key');
    const made = await gantry(
      'context',
      'create',
      'one',
      '--docker',
      `host=${daemon.host},ca=${key}`,
      '--description',
      'd',
    );
    assert.equal(made.code, 0, made.stderr);
    assert.equal((await gantry('context', 'export', 'one')).stderr, 'Written file "one.dockercontext"\n');
    assert.match((await gantry('context', 'export', 'one')).stderr, /^open one.dockercontext: file exists/);
    assert.equal((await gantry('context', 'import', 'two', 'one.dockercontext')).stdout, 'two\n');
    assert.equal((await gantry('context', 'update', 'two', '--description', 'changed')).code, 0);
    const inspected = await gantry(
      'context',
      'inspect',
      'two',
      '-f',
      '{{.Metadata.Description}} {{.TLSMaterial.docker}}',
    );
    assert.equal(inspected.stdout, 'changed [ca.pem]\n');
    // An archive that would leave the store is refused.
    mkdirSync(join(work, 'evil/tls/docker'), { recursive: true });
    writeFileSync(join(work, 'evil/meta.json'), '{"Name":"x","Metadata":{},"Endpoints":{}}');
    writeFileSync(join(work, 'evil/tls/docker/k'), 'k');
    const packed = await run('tar', [
      '-C',
      join(work, 'evil'),
      '--transform',
      's,tls/docker/k,tls/../../k,',
      '-Pcf',
      join(work, 'evil.tar'),
      'meta.json',
      'tls/docker/k',
    ]);
    assert.equal(packed.code, 0, packed.stderr);
    const evil = await gantry('context', 'import', 'evil', 'evil.tar');
    assert.equal(evil.code, 1);
    assert.match(evil.stderr, /unexpected path format/);
    assert.equal((await gantry('context', 'inspect', 'evil')).code, 1);
  });

  test('plugins are found, described and run with the whole command line', async () => {
    const config = join(work, 'plugins');
    const plugin = (name: string, metadata: string): void => {
      mkdirSync(join(config, 'cli-plugins'), { recursive: true });
      const path = join(config, `cli-plugins/docker-${name}`);
      writeFileSync(
        path,
        `#!/bin/sh\nif [ "$1" = docker-cli-plugin-metadata ]; then echo '${metadata}'; exit; fi\necho "ran $*"\nexit 7\n`,
      );
      chmodSync(path, 0o755);
    };
    plugin('greet', '{"SchemaVersion":"0.1.0","Vendor":"someone","Version":"1.2","ShortDescription":"Greets"}');
    plugin('broken', '{"SchemaVersion":"9.0.0","Vendor":"someone"}');
    const env = { DOCKER_CONFIG: config };
    const greeted = await daemon.gantry(['--log-level', 'info', 'greet', '--loud', 'you'], { env });
    assert.deepEqual([greeted.code, greeted.stdout], [7, 'ran --log-level info greet --loud you\n']);
    assert.match((await daemon.gantry(['broken'], { env })).stderr, /^gantry: unknown command: gantry broken/);
    assert.match(
      (await daemon.gantry(['info'], { env })).stdout,
      / {2}greet: Greets \(someone\)\n {4}Version: {2}1.2\n/,
    );
  });

  test('ssh:// goes through the ssh program and system dial-stdio', async () => {
    const bin = join(work, 'bin');
    mkdirSync(bin, { recursive: true });
    // Stands in for ssh and for docker at its far end.
    writeFileSync(
      join(bin, 'ssh'),
      `#!/bin/sh\necho "$@" >>${work}/ssh-log\nexec env DOCKER_HOST=${daemon.host} ${GANTRY} system dial-stdio\n`,
    );
    chmodSync(join(bin, 'ssh'), 0o755);
    const env = { DOCKER_HOST: 'ssh://me@far.test:2222', PATH: `${bin}:${process.env['PATH'] ?? ''}` };
    const remote = await daemon.gantry(['run', '--rm', '-i', '--network', 'none', 'busybox', 'cat'], {
      env,
      input: 'over ssh\n',
    });
    assert.deepEqual([remote.code, remote.stdout], [0, 'over ssh\n'], remote.stderr);
    assert.match(
      readFileSync(join(work, 'ssh-log'), 'utf8'),
      /^-l me -p 2222 -o ConnectTimeout=30 -T -- far\.test docker system dial-stdio\n/,
    );
  });

  test('contexts are made, used and removed', async () => {
    const env = { DOCKER_HOST: '', DOCKER_CONFIG: join(work, 'contexts') };
    const gantry = (...args: string[]) => daemon.gantry(args, { env });
    assert.equal((await gantry('context', 'create', 'mine', '--docker', `host=${daemon.host}`)).code, 0);
    assert.equal((await gantry('context', 'use', 'mine')).code, 0);
    assert.equal((await gantry('ps')).code, 0);
    assert.equal((await gantry('context', 'use', 'default')).code, 0);
    assert.equal((await gantry('context', 'rm', 'mine')).code, 0);
  });

  test('says what it is and what it cannot do', async () => {
    assert.match(await ok('--version'), /^Gantry version \d+\.\d+\.\d+$/);
    assert.match(await ok('version', '-f', '{{.Client.Version}}'), /^\d+\.\d+\.\d+$/);
    const pipe = await daemon.gantry(['-H', 'npipe://host', 'ps']);
    assert.equal(pipe.code, 1);
    assert.match(pipe.stderr, /npipe:\/\/ connections are not supported/);
  });
});
