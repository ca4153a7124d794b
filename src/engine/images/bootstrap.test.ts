import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Content } from '#services/content/content.ts';
import { ImageStore } from '#services/images/store.ts';
import { tarCodec } from '#services/images/tar-codec.ts';
import type { Layer, Snapshotter } from '#services/snapshots/contract.ts';
import { Database } from '#system/database/database.ts';
import type { Digest } from '#types/digest.ts';
import { bootstrapImage } from './bootstrap.ts';

async function bootstrap(name: string): Promise<{ id: string; names: string[] }> {
  const directory = await mkdtemp(join(tmpdir(), 'bootstrap-'));
  try {
    const layers = new Map<string, Layer>();
    const names: string[] = [];
    const snapshots = {
      layer: (id: string) => layers.get(id),
      layers: () => [...layers.values()],
      async applyLayer(_parent: undefined, tar: AsyncIterable<Buffer>): Promise<Layer> {
        const hash = createHash('sha256');
        const hashed = async function* (): AsyncGenerator<Buffer> {
          for await (const chunk of tar) {
            hash.update(chunk);
            yield chunk;
          }
        };
        for await (const { entry } of tarCodec.read(hashed())) names.push(entry.path);
        const diffId = `sha256:${hash.digest('hex')}` as Digest;
        const layer = { chainId: diffId, diffId, parent: undefined, sizeBytes: 1 };
        layers.set(diffId, layer);
        return layer;
      },
    };
    const images = new ImageStore(
      new Database(':memory:'),
      await Content.open(directory),
      snapshots as unknown as Snapshotter,
    );
    const image = await bootstrapImage({ images, tar: tarCodec, emit: () => {}, write: () => {} }, name);
    return { id: image.id, names };
  } finally {
    await rm(directory, { recursive: true });
  }
}

test('busybox is made the same twice, with all applets', {
  skip: existsSync('/bin/busybox') ? false : 'needs busybox-static',
}, async () => {
  const first = await bootstrap('busybox');
  const second = await bootstrap('busybox:latest');
  assert.equal(first.id, second.id);
  for (const path of ['bin/busybox', 'bin/sh', 'bin/ls', 'etc/passwd', 'tmp'])
    assert.ok(first.names.includes(path), path);
});

test('an unknown base image is refused by name', async () => {
  await assert.rejects(bootstrap('alpine'), /no recipe for a base image named alpine:latest/);
});
