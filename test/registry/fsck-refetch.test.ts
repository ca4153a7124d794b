/** `gantry system fsck --repair` brings lost content of a pulled image back from the registry it came from. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Database } from '#system/database/database.ts';
import { startDaemon } from '../harness/daemon.ts';
import { run } from '../harness/processes.ts';
import { startRegistry } from '../harness/registry.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'looks into the data root; GANTRY_TEST_HOST names another engine' } : {};

test('a blob, a manifest and a config of a pulled image are fetched again, with credentials', options, async () => {
  const user = { username: 'someone', password: 'secret-of-someone' };
  await using registry = await startRegistry({ htpasswd: user });
  await using daemon = await startDaemon({ bridge: false, busybox: false });
  const name = `${registry.host}/some/image:v1`;
  const source = join(daemon.directory, 'source');
  mkdirSync(source);
  writeFileSync(join(source, 'file'), 'content '.repeat(1000));
  await run('tar', ['-C', source, '--format=gnu', '-cf', `${source}.tar`, '.']);
  await daemon.ok('import', `${source}.tar`, name);
  await daemon.ok('login', '-u', user.username, '-p', user.password, registry.host);
  await daemon.ok('push', '-q', name);
  await daemon.ok('rmi', name);
  await daemon.ok('pull', '-q', name);
  const id = await daemon.ok('image', 'inspect', '-f', '{{.Id}}', name);
  const repoDigest = await daemon.ok('image', 'inspect', '-f', '{{index .RepoDigests 0}}', name);

  const fsck = async (...flags: string[]): Promise<{ code: number; outcomes: string[] }> => {
    const result = await daemon.gantry(['system', 'fsck', '--format', 'json', ...flags]);
    const findings = result.stdout.trim().split('\n').slice(0, -1);
    const outcomes = findings.map((line) => {
      const { finding } = JSON.parse(line);
      return [finding.kind, finding.object, finding.result].filter((part) => part !== undefined).join(' ');
    });
    return { code: result.code, outcomes };
  };
  const rows = <T>(work: (database: Database) => T): T => {
    using database = new Database(join(daemon.dataRoot, 'gantry.db'));
    return work(database);
  };

  const digest = rows((database) => String(database.get('SELECT digest FROM image_layer_blobs')?.['digest']));
  const blob = join(daemon.dataRoot, 'blobs/sha256', digest.slice(7));
  const bytes = readFileSync(blob);
  const from = `fetched again from ${registry.host}/some/image`;
  const flipped = Buffer.from(bytes);
  flipped.writeUInt8((flipped[20] ?? 0) ^ 1, 20);
  writeFileSync(blob, flipped);
  assert.deepEqual(await fsck(), { code: 1, outcomes: ['corrupt blob'] });
  assert.deepEqual(await fsck('--repair'), { code: 0, outcomes: [`corrupt blob ${from}`] });
  assert.deepEqual(readFileSync(blob), bytes);
  rmSync(blob);
  assert.deepEqual(await fsck('--repair'), { code: 0, outcomes: [`missing blob ${from}`] });
  assert.deepEqual(readFileSync(blob), bytes);

  rows((database) => database.run('UPDATE image_manifests SET bytes = ?', Buffer.from('{}')));
  assert.deepEqual(await fsck('--repair'), { code: 0, outcomes: [`corrupt manifest it was ${from}`] });

  await daemon.stop();
  rows((database) => database.run('UPDATE images SET config = ? WHERE id = ?', Buffer.from('{}'), id));
  await daemon.start();
  assert.deepEqual(await fsck('--repair'), { code: 0, outcomes: [`corrupt image its config was ${from}`] });

  // Without a registry what is left is not enough.
  await registry[Symbol.asyncDispose]();
  rmSync(blob);
  const failed = await fsck('--repair');
  assert.equal(failed.code, 1);
  assert.match(failed.outcomes[0] ?? '', /connection refused; its tree does not make the same archive again$/);
  assert.equal((await daemon.gantry(['system', 'fsck', '--repair'])).stdout.includes(user.password), false);
  assert.ok(repoDigest.startsWith(`${registry.host}/some/image@sha256:`));
});
