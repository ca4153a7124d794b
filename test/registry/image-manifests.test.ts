/** An image pulled by an index shows the index's manifests: which are here, and how large. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { digestOf } from '#types/digest.ts';
import { startDaemon } from '../harness/daemon.ts';
import { run } from '../harness/processes.ts';
import { startRegistry } from '../harness/registry.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;
const options = foreign ? { skip: 'graph-driver stores of docker show no manifests' } : {};
const MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';

interface Summary {
  readonly ID: string;
  readonly Descriptor: { readonly digest: string; readonly size: number };
  readonly Available: boolean;
  readonly Size: { readonly Content: number; readonly Total: number };
  readonly Kind: string;
  readonly ImageData?: {
    readonly Platform: { readonly os: string; readonly architecture: string };
    readonly Containers: readonly string[];
    readonly Size: { readonly Unpacked: number };
  };
}

test('manifests of an image that was pulled by an index', options, async () => {
  await using registry = await startRegistry();
  await using daemon = await startDaemon({ bridge: false, busybox: false });
  const host = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const other = host === 'amd64' ? 'arm64' : 'amd64';
  writeFileSync(join(daemon.directory, 'file'), 'x'.repeat(10_000));
  await run('tar', ['-C', daemon.directory, '-cf', join(daemon.directory, 'file.tar'), 'file']);
  const entries: object[] = [];
  for (const architecture of [host, other]) {
    const name = `${registry.host}/multi:${architecture}`;
    await daemon.ok('import', '--platform', `linux/${architecture}`, join(daemon.directory, 'file.tar'), name);
    await daemon.ok('push', '-q', name);
    await daemon.ok('rmi', name);
    const answer = await fetch(`${registry.url}/v2/multi/manifests/${architecture}`, { headers: { Accept: MANIFEST } });
    const bytes = Buffer.from(await answer.arrayBuffer());
    const descriptor = { mediaType: MANIFEST, digest: digestOf(bytes), size: bytes.length };
    entries.push({ ...descriptor, platform: { architecture, os: 'linux' } });
  }
  const [mine, theirs] = entries as { digest: string; size: number }[];
  assert.ok(mine !== undefined && theirs !== undefined);
  const index = JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [theirs, mine] });
  const put = await fetch(`${registry.url}/v2/multi/manifests/latest`, {
    method: 'PUT',
    headers: { 'Content-Type': INDEX },
    body: index,
  });
  assert.equal(put.status, 201);
  const name = `${registry.host}/multi:latest`;
  await daemon.ok('pull', '-q', name);
  const container = await daemon.ok('create', name, 'x');

  const list = (await daemon.api('GET', '/v1.51/images/json?manifests=1')).json<
    { Manifests: Summary[]; Size: number }[]
  >();
  const [image] = list;
  assert.deepEqual(
    image?.Manifests.map(({ ID, Available, Kind, ImageData }) => [
      ID,
      Available,
      Kind,
      ImageData?.Platform.architecture,
    ]),
    [
      [theirs.digest, false, 'image', other],
      [mine.digest, true, 'image', host],
    ],
  );
  const [missing, here] = image?.Manifests ?? [];
  assert.deepEqual(missing?.Size, { Content: 0, Total: 0 });
  assert.deepEqual(here?.ImageData?.Containers, [container]);
  assert.equal(here?.ImageData?.Size.Unpacked, image?.Size);
  assert.equal(here?.Size.Total, (here?.Size.Content ?? 0) + (image?.Size ?? 0));
  assert.ok((here?.Size.Content ?? 0) > mine.size);
  const inspect = (await daemon.api('GET', `/v1.51/images/${name}/json?manifests=1`)).json<{ Manifests: Summary[] }>();
  assert.deepEqual(inspect.Manifests, image?.Manifests);
  for (const path of ['/v1.46/images/json?manifests=1', '/v1.51/images/json']) {
    assert.equal('Manifests' in ((await daemon.api('GET', path)).json<object[]>()[0] ?? {}), false, path);
  }
  assert.match(
    await daemon.ok('images', '--tree'),
    new RegExp(`linux/${host}.*\\n.*linux/${other}|linux/${other}.*\\n.*linux/${host}`),
  );
});
