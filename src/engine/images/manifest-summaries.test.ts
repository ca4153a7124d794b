import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Image } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import { digestOf } from '#types/digest.ts';
import { manifestSummaries } from './manifest-summaries.ts';

test('an attestation tells which manifest it is for; an index within an index is no entry', () => {
  const [image, missing] = [Buffer.from('{"image":1}'), digestOf('missing')];
  const index = {
    manifests: [
      { mediaType: 'application/vnd.oci.image.index.v1+json', digest: digestOf('inner'), size: 3 },
      { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: digestOf(image), size: image.length },
      {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: missing,
        size: 7,
        annotations: {
          'vnd.docker.reference.type': 'attestation-manifest',
          'vnd.docker.reference.digest': digestOf(image),
        },
        platform: { architecture: 'unknown', os: 'unknown' },
      },
    ],
  };
  const images = {
    manifests: () => [{ digest: digestOf(image), mediaType: 'x', bytes: image }],
    configBytes: () => Buffer.alloc(5),
    layerBlob: () => ({ sizeBytes: 100 }),
  } as unknown as ImageStore;
  const about = {
    id: digestOf('config'),
    sizeBytes: 300,
    config: { os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [digestOf('layer')] } },
  } as unknown as Image;
  const bytes = Buffer.from(JSON.stringify(index));
  const indexes = () => [{ digest: digestOf(bytes), mediaType: 'y', bytes }];
  const uses = () => [{ containerId: 'c', imageId: about.id, running: true }];
  const found = manifestSummaries({ images, indexes, uses }, about);
  assert.deepEqual(
    found.map(({ ID, Kind, Available, Size, AttestationData }) => [ID, Kind, Available, Size, AttestationData]),
    [
      [digestOf(image), 'image', true, { Content: 116, Total: 416 }, undefined],
      [missing, 'attestation', false, { Content: 0, Total: 0 }, { For: digestOf(image) }],
    ],
  );
  assert.deepEqual(found[0]?.ImageData, {
    Platform: { architecture: 'amd64', os: 'linux' },
    Containers: ['c'],
    Size: { Unpacked: 300 },
  });
});
