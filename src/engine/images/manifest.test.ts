import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { digestOf } from '#types/digest.ts';
import { GantryError } from '#types/errors.ts';
import type { Platform } from '#types/platform.ts';
import { parseReference } from '#types/reference.ts';
import { checkImageManifest, type Descriptor, parseManifest } from './manifest.ts';
import { amd64Level, chooseManifests } from './platform-choice.ts';

const REFERENCE = parseReference('example.org/x:v');
const DOCKER = 'application/vnd.docker.distribution.manifest.v2+json';
const parse = (value: unknown, type = ''): ReturnType<typeof parseManifest> =>
  parseManifest(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)), type, REFERENCE);
const item = (mediaType: string, size = 1): object => ({ mediaType, digest: digestOf(mediaType), size });
const image = (changes: object = {}): object => ({
  schemaVersion: 2,
  mediaType: DOCKER,
  config: item('application/vnd.docker.container.image.v1+json'),
  layers: [item('application/vnd.docker.image.rootfs.diff.tar.gzip')],
  ...changes,
});

test('the document says what it is, else what came with it', () => {
  assert.equal(parse(image()).kind, 'image');
  assert.equal(parse(image({ mediaType: undefined })).kind, 'image');
  assert.equal(parse({ schemaVersion: 2, manifests: [] }).kind, 'index');
  assert.throws(() => parse(image({ manifests: [] })), /should not have/);
  assert.throws(
    () => parse(image({ mediaType: 'application/vnd.example' })),
    /unsupported media type application\/vnd\.example/,
  );
  assert.throws(
    () => parse({ schemaVersion: 1, fsLayers: [] }),
    /schema 1 support has been removed\. Suggest the author of example\.org\/x:v/,
  );
});

test('what a registry must not say is refused', () => {
  assert.throws(
    () => parse(image({ config: { digest: 'sha256:x', size: 1 } })),
    /could not validate config digest "sha256:x"/,
  );
  for (const size of [-1, 1.5, 2 ** 60, '1', null]) {
    assert.throws(() => parse(image({ layers: [{ ...item('x'), size }] })), /not a valid number of bytes/);
  }
  const check = (changes: object) => (): void => {
    const parsed = parse(image(changes));
    if (parsed.kind === 'image') checkImageManifest(parsed);
  };
  check({})();
  assert.throws(
    check({ config: item('application/vnd.docker.plugin.v1+json') }),
    /Encountered remote "application\/vnd\.docker\.plugin\.v1\+json"\(plugin\) when fetching/,
  );
  assert.throws(check({ layers: [item('application/vnd.docker.image.rootfs.diff.tar.gzip', 2 ** 50)] }), /larger than/);
  assert.throws(check({ layers: [item('application/vnd.oci.image.layer.nondistributable.v1.tar')] }), /foreign layer/);
  assert.throws(check({ config: item('application/vnd.oci.image.config.v1+json', 2 ** 40) }), /image configuration of/);
});

test('any bytes are parsed or refused with a GantryError', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      try {
        parse(text);
      } catch (error) {
        assert.ok(error instanceof GantryError, String(error));
      }
    }),
  );
});

const entry = (platform?: Platform): Descriptor => ({
  mediaType: DOCKER,
  digest: digestOf(JSON.stringify(platform ?? null)),
  sizeBytes: 1,
  ...(platform === undefined ? {} : { platform }),
});

test('the best entry of an index comes first', () => {
  const platforms = (wanted: Platform, ...offered: (Platform | undefined)[]): string[] =>
    chooseManifests(
      offered.map((platform) => entry(platform)),
      wanted,
    ).map(({ platform }) => (platform === undefined ? 'any' : `${platform.architecture}/${platform.variant ?? ''}`));
  const arch = (architecture: string, variant?: string, os = 'linux'): Platform => ({
    os,
    architecture,
    ...(variant === undefined ? {} : { variant }),
  });
  assert.deepEqual(platforms(arch('amd64'), arch('386'), undefined, arch('arm64'), arch('amd64')), [
    'amd64/',
    '386/',
    'any',
  ]);
  assert.deepEqual(platforms(arch('amd64', 'v3'), arch('amd64'), arch('amd64', 'v4'), arch('amd64', 'v2')), [
    'amd64/v2',
    'amd64/',
  ]);
  assert.deepEqual(platforms(arch('arm', 'v7'), arch('arm', 'v5'), arch('arm', 'v8'), arch('arm', 'v6')), [
    'arm/v6',
    'arm/v5',
  ]);
  assert.deepEqual(platforms(arch('arm64'), arch('arm', 'v7'), arch('arm64', 'v8')), ['arm64/v8', 'arm/v7']);
  assert.deepEqual(platforms(arch('s390x'), arch('amd64'), arch('s390x', undefined, 'windows')), []);
});

test('the level of an x86-64 CPU is read from its flags', () => {
  const v2 = 'cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3';
  assert.equal(amd64Level(''), 'v1');
  assert.equal(amd64Level(`flags\t\t: fpu ${v2}\n`), 'v2');
  assert.equal(amd64Level(`flags\t\t: ${v2} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave\n`), 'v3');
});
