/** The classic builder: the instructions of a first Dockerfile, its cache and its errors. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import type { Result } from '../harness/processes.ts';

describe('docker build', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  const scratch = mkdtempSync(join(tmpdir(), 'gantry-build-'));
  after(() => rmSync(scratch, { recursive: true, force: true }));

  /** Writes a context and builds it. */
  const build = async (image: string, dockerfile: string, files: Record<string, string> = {}): Promise<Result> => {
    const context = mkdtempSync(join(scratch, 'context-'));
    writeFileSync(join(context, 'Dockerfile'), dockerfile);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(context, name), text);
    return daemon.docker(['build', '--network', 'none', '-t', image, context]);
  };
  const imageName = (purpose: string): string => daemon.name(purpose).toLowerCase();

  test('builds, runs and caches', async () => {
    const image = imageName('web');
    const text =
      'FROM busybox\nENV WHO=world\nWORKDIR /src\nRUN echo installed >/installed\nCOPY . /src\nEXPOSE 8080\nCMD ["sh", "-c", "cat /installed note; echo hello $WHO from $PWD"]\n';
    const first = await build(image, text, { note: 'a note\n' });
    assert.equal(first.code, 0, first.stdout + first.stderr);
    assert.match(first.stdout, /^Step 1\/7 : FROM busybox$/m);
    assert.match(first.stdout, /^Successfully built [0-9a-f]{12}$/m);
    assert.match(first.stdout, new RegExp(`^Successfully tagged ${image}:latest$`, 'm'));
    assert.equal(await daemon.ok('run', '--rm', '--net', 'none', image), 'installed\na note\nhello world from /src');
    assert.equal(
      await daemon.ok('image', 'inspect', '-f', '{{json .Config.ExposedPorts}} {{.Config.WorkingDir}}', image),
      '{"8080/tcp":{}} /src',
    );
    const second = await build(image, text, { note: 'a note\n' });
    assert.equal(second.stdout.match(/ ---> Using cache/g)?.length, 6);
    const third = await build(image, text, { note: 'another\n' });
    assert.equal(third.stdout.match(/ ---> Using cache/g)?.length, 3);
    await daemon.ok('rmi', image);
  });

  test('a failing step says its command and code and leaves no tag', async () => {
    const image = imageName('fail');
    const result = await build(image, 'FROM busybox\nRUN exit 7\n');
    assert.notEqual(result.code, 0);
    assert.match(result.stderr, /The command '\/bin\/sh -c exit 7' returned a non-zero code: 7/);
    assert.equal((await daemon.docker(['image', 'inspect', image])).code, 1);
  });

  test('mistakes are named', async () => {
    assert.match(
      (await build(imageName('e1'), 'FROM busybox\nFLY away\n')).stderr,
      /dockerfile parse error on line 2: unknown instruction: FLY/,
    );
    assert.match((await build(imageName('e2'), '\n')).stderr, /file with no instructions|Dockerfile.*cannot be empty/);
    assert.match(
      (await build(imageName('e3'), 'FROM busybox\nCOPY absent /x\n')).stderr,
      /COPY failed: file not found in build context or excluded by \.dockerignore: stat absent: file does not exist/,
    );
    assert.match((await build(imageName('e4'), 'RUN true\n')).stderr, /no build stage in current context/);
  });

  test('.dockerignore keeps files out', async () => {
    const image = imageName('ignore');
    const result = await build(image, 'FROM busybox\nCOPY . /c\nCMD ["ls", "-A", "/c"]\n', {
      '.dockerignore': 'secret*\nDockerfile\n.dockerignore\n',
      secret1: 'x',
      open: 'y',
    });
    assert.equal(result.code, 0, result.stderr);
    assert.equal(await daemon.ok('run', '--rm', '--net', 'none', image), 'open');
    await daemon.ok('rmi', image);
  });

  test('ENTRYPOINT and CMD combine as they do at run time', async () => {
    const image = imageName('entry');
    await build(image, 'FROM busybox\nENTRYPOINT ["echo", "entry"]\nCMD ["default"]\n');
    assert.equal(await daemon.ok('run', '--rm', '--net', 'none', image), 'entry default');
    assert.equal(await daemon.ok('run', '--rm', '--net', 'none', image, 'given'), 'entry given');
    await daemon.ok('rmi', image);
  });

  const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
  test('--squash merges what was built over its base, where experiments are allowed', {
    skip: foreign && 'needs our own daemon with other flags',
  }, async () => {
    await using open = await startDaemon({ bridge: false, flags: ['--experimental'] });
    const context = mkdtempSync(join(scratch, 'squash-'));
    writeFileSync(
      join(context, 'Dockerfile'),
      'FROM busybox\nCOPY Dockerfile /a\nRUN rm /a && echo b >/b\nLABEL x=y\n',
    );
    const built = await open.docker(['build', '--network', 'none', '--squash', '-t', 'small', context]);
    assert.equal(built.code, 0, built.stderr);
    const last = [...built.stdout.matchAll(/^ ---> ([0-9a-f]{12})$/gm)].at(-1)?.[1] ?? '';
    const shown = (format: string, name: string): Promise<string> => open.ok('image', 'inspect', '-f', format, name);
    const id = await shown('{{.Id}}', 'small');
    assert.match(
      built.stdout,
      new RegExp(`\nSuccessfully built ${id.slice(7, 19)}\nSuccessfully tagged small:latest\n$`),
    );
    const comment = `merge ${await shown('{{.Id}}', last)} to ${await shown('{{.Id}}', 'busybox')}`;
    assert.equal(await shown('{{.Comment}}|{{.Parent}}|{{.Config.Labels.x}}', 'small'), `${comment}||y`);
    assert.equal(await shown('{{len .RootFS.Layers}}', 'small'), '2');
    assert.match(
      await open.ok('history', '--format', '{{.Comment}}', '--no-trunc', 'small'),
      new RegExp(`^${comment}`),
    );
    const files = await open.ok('run', '--rm', '--net', 'none', 'small', 'sh', '-c', 'ls -d /a /b 2>/dev/null; cat /b');
    assert.equal(files, '/b\nb');
    assert.match((await daemon.docker(['info', '-f', '{{.ExperimentalBuild}}'])).stdout, /^false/);
    assert.equal(await open.ok('version', '-f', '{{.Server.Experimental}}'), 'true');
    const refused = await daemon.api('POST', '/build?squash=1', '');
    assert.match(refused.text, /squash is only supported with experimental mode/);
  });
});
