import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import {
  imageManifest,
  OCI_INDEX,
  OCI_MANIFEST,
  sha256,
  startRegistry,
  type TestRegistry,
} from '../harness/registry-server.ts';

/** Every clause of the distribution-spec 1.1 that a registry answers for, as its conformance suite walks through them. */
describe('the registry answers as the distribution-spec says', () => {
  let registry: TestRegistry;
  before(async () => {
    registry = await startRegistry();
  });
  after(() => registry?.[Symbol.asyncDispose]());

  const CONFIG = '{"architecture":"amd64","os":"linux"}';
  const LAYER = Buffer.alloc(1000, 'layer');
  const MISSING = sha256('missing');

  const begin = async (repository: string): Promise<string> => {
    const answer = await registry.ask('POST', `/v2/${repository}/blobs/uploads/`, { body: '' });
    assert.equal(answer.status, 202);
    assert.match(answer.headers['docker-upload-uuid'] as string, /^[0-9a-f-]{36}$/);
    return answer.headers.location ?? '';
  };

  describe('pull', () => {
    let manifest: { bytes: string; digest: string };
    before(async () => {
      manifest = await registry.pushImage('pull/app', 'v1', [LAYER]);
    });

    test('the base says which protocol it is', async () => {
      const answer = await registry.ask('GET', '/v2/');
      assert.equal(answer.status, 200);
      assert.equal(answer.headers['docker-distribution-api-version'], 'registry/2.0');
    });

    for (const [what, method, path, status, code] of [
      ['a blob that is not there', 'GET', `/v2/pull/app/blobs/${MISSING}`, 404, 'BLOB_UNKNOWN'],
      ['the head of a blob that is not there', 'HEAD', `/v2/pull/app/blobs/${MISSING}`, 404, undefined],
      ['a blob of another repository', 'GET', `/v2/other/app/blobs/${sha256(LAYER)}`, 404, 'BLOB_UNKNOWN'],
      ['a digest of a wrong form', 'GET', '/v2/pull/app/blobs/sha256:12', 400, 'DIGEST_INVALID'],
      ['a digest of an unknown algorithm', 'GET', `/v2/pull/app/blobs/md5:${'a'.repeat(32)}`, 400, 'DIGEST_INVALID'],
      ['a manifest that is not there', 'GET', '/v2/pull/app/manifests/none', 404, 'MANIFEST_UNKNOWN'],
      ['the head of a manifest that is not there', 'HEAD', '/v2/pull/app/manifests/none', 404, undefined],
      ['a manifest of an unknown repository', 'GET', '/v2/pull/none/manifests/v1', 404, 'MANIFEST_UNKNOWN'],
      ['a tag of a wrong form', 'GET', '/v2/pull/app/manifests/.v1', 400, 'TAG_INVALID'],
      ['a name of a wrong form', 'GET', '/v2/Pull/App/manifests/v1', 400, 'NAME_INVALID'],
      ['a method it does not have', 'POST', '/v2/pull/app/manifests/v1', 405, 'UNSUPPORTED'],
    ] as const) {
      test(`${what}: ${status} ${code ?? ''}`, async () => {
        const answer = await registry.ask(method, path);
        assert.equal(answer.status, status);
        assert.equal(answer.code, code);
      });
    }

    test('a manifest by tag and by digest: its bytes, type, length and digest', async () => {
      for (const reference of ['v1', manifest.digest]) {
        for (const method of ['GET', 'HEAD']) {
          const answer = await registry.ask(method, `/v2/pull/app/manifests/${reference}`, {
            headers: { accept: OCI_MANIFEST },
          });
          assert.equal(answer.status, 200);
          assert.equal(answer.headers['content-type'], OCI_MANIFEST);
          assert.equal(answer.headers['docker-content-digest'], manifest.digest);
          assert.equal(answer.headers['content-length'], String(manifest.bytes.length));
          assert.equal(answer.text, method === 'GET' ? manifest.bytes : '');
        }
      }
    });

    test('an unchanged manifest or blob: 304', async () => {
      const cases = [
        ['manifests/v1', manifest.digest],
        [`blobs/${sha256(LAYER)}`, sha256(LAYER)],
      ];
      for (const [path, digest] of cases) {
        const headers = { 'if-none-match': `"${digest}"` };
        assert.equal((await registry.ask('GET', `/v2/pull/app/${path}`, { headers })).status, 304);
        const others = { 'if-none-match': `"${MISSING}"` };
        assert.equal((await registry.ask('GET', `/v2/pull/app/${path}`, { headers: others })).status, 200);
      }
    });

    test('a blob: its bytes, length and digest', async () => {
      const path = `/v2/pull/app/blobs/${sha256(LAYER)}`;
      const head = await registry.ask('HEAD', path);
      assert.deepEqual([head.status, head.headers['content-length'], head.body.length], [200, '1000', 0]);
      const answer = await registry.ask('GET', path);
      assert.equal(answer.headers['docker-content-digest'], sha256(LAYER));
      assert.ok(answer.body.equals(LAYER));
    });

    for (const [range, status, expected, contentRange] of [
      ['bytes=0-9', 206, [0, 10], 'bytes 0-9/1000'],
      ['bytes=990-', 206, [990, 1000], 'bytes 990-999/1000'],
      ['bytes=-5', 206, [995, 1000], 'bytes 995-999/1000'],
      ['bytes=10-5000', 206, [10, 1000], 'bytes 10-999/1000'],
      ['bytes=1000-', 416, undefined, 'bytes */1000'],
      ['bytes=9-1', 200, [0, 1000], undefined],
      ['bytes=0-1,3-4', 200, [0, 1000], undefined],
      ['lines=1-2', 200, [0, 1000], undefined],
      ['bytes=99999999999999999999-', 200, [0, 1000], undefined],
    ] as const) {
      test(`a range of a blob, ${range}: ${status}`, async () => {
        const answer = await registry.ask('GET', `/v2/pull/app/blobs/${sha256(LAYER)}`, { headers: { range } });
        assert.equal(answer.status, status);
        assert.equal(answer.headers['content-range'], contentRange);
        if (expected === undefined) assert.equal(answer.code, 'RANGE_INVALID');
        else assert.ok(answer.body.equals(LAYER.subarray(...expected)));
      });
    }
  });

  describe('push', () => {
    test('POST and PUT', async () => {
      const location = await begin('push/app');
      const digest = sha256(LAYER);
      const answer = await registry.ask('PUT', `${location}?digest=${digest}`, { body: LAYER });
      assert.equal(answer.status, 201);
      assert.equal(answer.headers['docker-content-digest'], digest);
      assert.equal((await registry.ask('HEAD', answer.headers.location ?? '')).status, 200);
      assert.equal((await registry.ask('GET', location)).code, 'BLOB_UPLOAD_UNKNOWN');
    });

    test('a single POST', async () => {
      assert.equal(await registry.pushBlob('push/app', 'single post'), sha256('single post'));
    });

    test('an empty blob', async () => {
      const digest = await registry.pushBlob('push/app', '');
      const answer = await registry.ask('GET', `/v2/push/app/blobs/${digest}`);
      assert.deepEqual([answer.status, answer.headers['content-length']], [200, '0']);
    });

    test('a sha512 digest', async () => {
      const digest = `sha512:${createHash('sha512').update('long').digest('hex')}`;
      const location = await begin('push/app');
      assert.equal((await registry.ask('PUT', `${location}?digest=${digest}`, { body: 'long' })).status, 201);
      assert.equal((await registry.ask('GET', `/v2/push/app/blobs/${digest}`)).text, 'long');
    });

    test('in parts, with a status between them, and a part out of order refused with 416', async () => {
      const location = await begin('push/app');
      const part = (range: string, body: string): ReturnType<TestRegistry['ask']> =>
        registry.ask('PATCH', location, {
          body,
          headers: { 'content-range': range, 'content-type': 'application/octet-stream' },
        });
      const early = await part('5-9', 'world');
      assert.deepEqual([early.status, early.code], [416, 'RANGE_INVALID']);
      const first = await part('0-4', 'hello');
      assert.deepEqual([first.status, first.headers['range']], [202, '0-4']);
      const status = await registry.ask('GET', location);
      assert.deepEqual([status.status, status.headers['range'], status.headers.location], [204, '0-4', location]);
      const again = await part('0-4', 'hello');
      assert.deepEqual([again.status, again.headers['range']], [416, '0-4']);
      assert.equal((await part('5-9', ' wor')).code, 'SIZE_INVALID');
      assert.equal((await part('five', ' wor')).code, 'BLOB_UPLOAD_INVALID');
      const digest = sha256('hello world');
      const last = await registry.ask('PUT', `${location}?digest=${digest}`, {
        body: ' world',
        headers: { 'content-range': '5-10' },
      });
      assert.equal(last.status, 201);
      assert.equal((await registry.ask('GET', `/v2/push/app/blobs/${digest}`)).text, 'hello world');
    });

    test('a body of no announced length', async () => {
      const location = await begin('push/app');
      const answer = await registry.ask('PATCH', location, {
        body: 'streamed',
        headers: { 'transfer-encoding': 'chunked' },
      });
      assert.deepEqual([answer.status, answer.headers['range']], [202, '0-7']);
      assert.equal((await registry.ask('PUT', `${location}?digest=${sha256('streamed')}`, { body: '' })).status, 201);
    });

    test('a wrong digest is refused and nothing is stored', async () => {
      const location = await begin('push/app');
      const answer = await registry.ask('PUT', `${location}?digest=${MISSING}`, { body: 'something else' });
      assert.deepEqual([answer.status, answer.code], [400, 'DIGEST_INVALID']);
      assert.equal((await registry.ask('HEAD', `/v2/push/app/blobs/${MISSING}`)).status, 404);
      assert.equal((await registry.ask('HEAD', `/v2/push/app/blobs/${sha256('something else')}`)).status, 404);
    });

    test('without a digest, with a malformed one: DIGEST_INVALID', async () => {
      const location = await begin('push/app');
      assert.equal((await registry.ask('PUT', location, { body: '' })).code, 'DIGEST_INVALID');
      assert.equal((await registry.ask('PUT', `${location}?digest=x`, { body: '' })).code, 'DIGEST_INVALID');
    });

    test('a cancelled upload is gone', async () => {
      const location = await begin('push/app');
      assert.equal((await registry.ask('DELETE', location)).status, 204);
      const after = await registry.ask('PATCH', location, { body: 'x' });
      assert.deepEqual([after.status, after.code], [404, 'BLOB_UPLOAD_UNKNOWN']);
    });

    test('an upload belongs to its repository', async () => {
      const location = await begin('push/app');
      assert.equal((await registry.ask('GET', location.replace('push/app', 'push/other'))).code, 'BLOB_UPLOAD_UNKNOWN');
    });

    test('a mount from another repository, from anywhere, and from where it is not', async () => {
      const digest = await registry.pushBlob('push/source', 'to mount');
      const mount = (query: string): ReturnType<TestRegistry['ask']> =>
        registry.ask('POST', `/v2/push/target/blobs/uploads/?${query}`, { body: '' });
      const mounted = await mount(`mount=${digest}&from=push/source`);
      assert.deepEqual([mounted.status, mounted.headers.location], [201, `/v2/push/target/blobs/${digest}`]);
      assert.equal((await registry.ask('GET', `/v2/push/target/blobs/${digest}`)).text, 'to mount');
      assert.equal(
        (await registry.ask('POST', `/v2/push/third/blobs/uploads/?mount=${digest}`, { body: '' })).status,
        201,
      );
      const unknown = await mount(`mount=${MISSING}&from=push/source`);
      assert.equal(unknown.status, 202);
      assert.ok(unknown.headers.location?.startsWith('/v2/push/target/blobs/uploads/'));
    });

    const put = (reference: string, manifest: object | string, type = OCI_MANIFEST): ReturnType<TestRegistry['ask']> =>
      registry.ask('PUT', `/v2/push/app/manifests/${reference}`, {
        body: typeof manifest === 'string' ? manifest : JSON.stringify(manifest),
        headers: type === '' ? {} : { 'content-type': type },
      });

    test('a manifest by tag and by digest, with and without a Content-Type', async () => {
      await registry.pushBlob('push/app', CONFIG);
      await registry.pushBlob('push/app', LAYER);
      const manifest = JSON.stringify(imageManifest(CONFIG, [LAYER]));
      for (const reference of ['by-tag', sha256(manifest)]) {
        for (const type of [OCI_MANIFEST, '']) {
          const answer = await put(reference, manifest, type);
          assert.equal(answer.status, 201);
          assert.equal(answer.headers.location, `/v2/push/app/manifests/${sha256(manifest)}`);
        }
      }
      assert.equal((await put(MISSING, manifest)).code, 'DIGEST_INVALID');
    });

    test('a manifest without layers, a manifest with a configuration of any type, an index, an index in an index', async () => {
      await registry.pushBlob('push/app', '{}');
      const artifact = { ...imageManifest('{}', []), artifactType: 'application/x.test' };
      assert.equal((await put('artifact', artifact)).status, 201);
      const body = JSON.stringify(artifact);
      const index = {
        schemaVersion: 2,
        mediaType: OCI_INDEX,
        manifests: [{ mediaType: OCI_MANIFEST, digest: sha256(body), size: body.length }],
      };
      assert.equal((await put('index', index, OCI_INDEX)).status, 201);
      const inner = JSON.stringify(index);
      const outer = {
        schemaVersion: 2,
        mediaType: OCI_INDEX,
        manifests: [{ mediaType: OCI_INDEX, digest: sha256(inner), size: inner.length }],
      };
      assert.equal((await put('outer', outer, OCI_INDEX)).status, 201);
      assert.equal(
        (await put('empty', { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] }, OCI_INDEX)).status,
        201,
      );
    });

    test("Docker's schema 2 manifest and list", async () => {
      const types = [
        'application/vnd.docker.distribution.manifest.v2+json',
        'application/vnd.docker.distribution.manifest.list.v2+json',
      ] as const;
      const image = JSON.stringify({ ...imageManifest(CONFIG, [LAYER]), mediaType: types[0] });
      assert.equal((await put('docker', image, types[0])).status, 201);
      const list = {
        schemaVersion: 2,
        mediaType: types[1],
        manifests: [
          {
            mediaType: types[0],
            digest: sha256(image),
            size: image.length,
            platform: { os: 'linux', architecture: 'amd64' },
          },
        ],
      };
      assert.equal((await put('list', list, types[1])).status, 201);
      assert.equal((await registry.ask('GET', '/v2/push/app/manifests/list')).headers['content-type'], types[1]);
    });

    test('what it names must be there, and as large as it says', async () => {
      const lost = await put('lost', imageManifest(CONFIG, ['nowhere']));
      assert.deepEqual([lost.status, lost.code], [400, 'MANIFEST_BLOB_UNKNOWN']);
      assert.deepEqual(JSON.parse(lost.text).errors[0].detail, [{ digest: sha256('nowhere') }]);
      const index = {
        schemaVersion: 2,
        mediaType: OCI_INDEX,
        manifests: [{ mediaType: OCI_MANIFEST, digest: MISSING, size: 3 }],
      };
      assert.equal((await put('lost', index, OCI_INDEX)).code, 'MANIFEST_BLOB_UNKNOWN');
      const manifest = imageManifest(CONFIG, [LAYER]);
      const lying = { ...manifest, layers: [{ mediaType: 'application/x', digest: sha256(LAYER), size: 1 }] };
      assert.equal((await put('lost', lying)).code, 'MANIFEST_INVALID');
      assert.equal((await registry.ask('HEAD', '/v2/push/app/manifests/lost')).status, 404);
    });

    for (const [what, body, type] of [
      ['no JSON', 'not json', OCI_MANIFEST],
      ['an empty body', '', OCI_MANIFEST],
      ['a list', '[]', OCI_MANIFEST],
      [
        'schema 1',
        '{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[]}',
        'application/vnd.docker.distribution.manifest.v1+prettyjws',
      ],
      ['an unknown type', '{"schemaVersion":2}', 'application/x-unknown'],
      ['no type at all', '{"schemaVersion":2}', ''],
      [
        'another type than the header says',
        `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[]}`,
        OCI_MANIFEST,
      ],
      ['no configuration', `{"schemaVersion":2,"mediaType":"${OCI_MANIFEST}","layers":[]}`, OCI_MANIFEST],
      [
        'a negative size',
        `{"schemaVersion":2,"config":{"mediaType":"x","digest":"${MISSING}","size":-1},"layers":[]}`,
        OCI_MANIFEST,
      ],
      [
        'layers that are no list',
        `{"schemaVersion":2,"config":{"mediaType":"x","digest":"${MISSING}","size":1},"layers":{}}`,
        OCI_MANIFEST,
      ],
    ] as const) {
      test(`a manifest that is ${what} is refused`, async () => {
        const answer = await put('bad', body, type);
        assert.deepEqual([answer.status, answer.code], [400, 'MANIFEST_INVALID']);
      });
    }
  });

  describe('discovery', () => {
    before(async () => {
      for (const tag of ['b', 'a', 'C', 'latest', 'd']) await registry.pushImage('find/app', tag, []);
      await registry.pushImage('find/zebra', 'v1', []);
    });

    test('tags in order, in pages that link to the next', async () => {
      const all = await registry.ask('GET', '/v2/find/app/tags/list');
      assert.deepEqual(JSON.parse(all.text), { name: 'find/app', tags: ['C', 'a', 'b', 'd', 'latest'] });
      assert.equal(all.headers['link'], undefined);
      let path: string | undefined = '/v2/find/app/tags/list?n=2';
      const pages: string[][] = [];
      while (path !== undefined) {
        const answer = await registry.ask('GET', path);
        pages.push(JSON.parse(answer.text).tags);
        path = /^<([^>]+)>; rel="next"$/.exec(String(answer.headers['link'] ?? ''))?.[1];
      }
      assert.deepEqual(pages, [['C', 'a'], ['b', 'd'], ['latest']]);
      assert.deepEqual(JSON.parse((await registry.ask('GET', '/v2/find/app/tags/list?last=b')).text).tags, [
        'd',
        'latest',
      ]);
      assert.deepEqual(JSON.parse((await registry.ask('GET', '/v2/find/app/tags/list?n=0')).text).tags, []);
      assert.equal((await registry.ask('GET', '/v2/find/app/tags/list?n=many')).code, 'PAGINATION_NUMBER_INVALID');
      assert.equal((await registry.ask('GET', '/v2/find/none/tags/list')).code, 'NAME_UNKNOWN');
    });

    test('the catalogue, in pages', async () => {
      const found = JSON.parse((await registry.ask('GET', '/v2/_catalog?last=find/&n=2')).text).repositories;
      assert.deepEqual(found, ['find/app', 'find/zebra']);
      const first = await registry.ask('GET', '/v2/_catalog?n=1');
      assert.match(String(first.headers['link']), /^<\/v2\/_catalog\?last=.*&n=1>; rel="next"$/);
    });

    test('referrers: of a subject, by type, of none, before the subject is there', async () => {
      const subject = await registry.pushImage('find/app', 'subject', []);
      const refer = async (type: string, subjectDigest: string): Promise<{ digest: string; header: unknown }> => {
        const config = '{}';
        await registry.pushBlob('find/app', config);
        const manifest = {
          ...imageManifest(config, []),
          artifactType: type,
          annotations: { of: type },
          subject: { mediaType: OCI_MANIFEST, digest: subjectDigest, size: subject.bytes.length },
        };
        const body = JSON.stringify(manifest);
        const answer = await registry.ask('PUT', `/v2/find/app/manifests/${sha256(body)}`, {
          body,
          headers: { 'content-type': OCI_MANIFEST },
        });
        assert.equal(answer.status, 201, answer.text);
        return { digest: sha256(body), header: answer.headers['oci-subject'] };
      };
      const signature = await refer('application/x.signature', subject.digest);
      const bom = await refer('application/x.bom', subject.digest);
      assert.equal(signature.header, subject.digest);
      const all = await registry.ask('GET', `/v2/find/app/referrers/${subject.digest}`);
      assert.equal(all.headers['content-type'], OCI_INDEX);
      const index = JSON.parse(all.text);
      assert.equal(index.mediaType, OCI_INDEX);
      assert.deepEqual(
        index.manifests.map(({ digest }: { digest: string }) => digest).toSorted(),
        [signature.digest, bom.digest].toSorted(),
      );
      const filtered = await registry.ask(
        'GET',
        `/v2/find/app/referrers/${subject.digest}?artifactType=application/x.bom`,
      );
      assert.equal(filtered.headers['oci-filters-applied'], 'artifactType');
      const [only, ...more] = JSON.parse(filtered.text).manifests;
      assert.deepEqual(
        [only.digest, only.artifactType, only.annotations, only.mediaType, more.length],
        [bom.digest, 'application/x.bom', { of: 'application/x.bom' }, OCI_MANIFEST, 0],
      );
      const none = await registry.ask('GET', `/v2/find/none/referrers/${MISSING}`);
      assert.deepEqual([none.status, JSON.parse(none.text).manifests], [200, []]);
      assert.equal((await registry.ask('GET', '/v2/find/app/referrers/nothing')).code, 'DIGEST_INVALID');
      await refer('application/x.early', MISSING);
      assert.equal(
        JSON.parse((await registry.ask('GET', `/v2/find/app/referrers/${MISSING}`)).text).manifests.length,
        1,
      );
      assert.equal((await registry.ask('DELETE', `/v2/find/app/manifests/${bom.digest}`)).status, 202);
      assert.equal(
        JSON.parse((await registry.ask('GET', `/v2/find/app/referrers/${subject.digest}`)).text).manifests.length,
        1,
      );
    });
  });

  describe('management', () => {
    test('deleting a tag leaves the manifest; deleting the manifest takes its tags', async () => {
      const { digest } = await registry.pushImage('manage/app', 'one', [LAYER]);
      await registry.pushImage('manage/app', 'one-more', [LAYER]);
      const body = (await registry.ask('GET', '/v2/manage/app/manifests/one')).body;
      await registry.ask('PUT', '/v2/manage/app/manifests/two', { body, headers: { 'content-type': OCI_MANIFEST } });
      assert.equal((await registry.ask('DELETE', '/v2/manage/app/manifests/one')).status, 202);
      assert.equal((await registry.ask('GET', '/v2/manage/app/manifests/one')).status, 404);
      assert.equal((await registry.ask('GET', '/v2/manage/app/manifests/two')).status, 200);
      assert.equal((await registry.ask('DELETE', `/v2/manage/app/manifests/${digest}`)).status, 202);
      assert.equal((await registry.ask('GET', `/v2/manage/app/manifests/${digest}`)).status, 404);
      assert.equal((await registry.ask('GET', '/v2/manage/app/manifests/two')).status, 404);
      assert.equal((await registry.ask('DELETE', '/v2/manage/app/manifests/one')).code, 'MANIFEST_UNKNOWN');
    });

    test('a manifest that an index names stays', async () => {
      const { digest, bytes } = await registry.pushImage('manage/app', 'part', [LAYER]);
      const index = JSON.stringify({
        schemaVersion: 2,
        mediaType: OCI_INDEX,
        manifests: [{ mediaType: OCI_MANIFEST, digest, size: bytes.length }],
      });
      const headers = { 'content-type': OCI_INDEX };
      assert.equal((await registry.ask('PUT', '/v2/manage/app/manifests/index', { body: index, headers })).status, 201);
      assert.equal((await registry.ask('DELETE', `/v2/manage/app/manifests/${digest}`)).status, 405);
      assert.equal((await registry.ask('DELETE', `/v2/manage/app/manifests/${sha256(index)}`)).status, 202);
      assert.equal((await registry.ask('DELETE', `/v2/manage/app/manifests/${digest}`)).status, 202);
    });

    test('a blob in use stays, one that is not goes', async () => {
      await registry.pushImage('manage/app', 'used', [LAYER]);
      const used = await registry.ask('DELETE', `/v2/manage/app/blobs/${sha256(LAYER)}`);
      assert.deepEqual([used.status, used.code], [405, 'UNSUPPORTED']);
      const digest = await registry.pushBlob('manage/app', 'unused');
      assert.equal((await registry.ask('DELETE', `/v2/manage/app/blobs/${digest}`)).status, 202);
      assert.equal((await registry.ask('GET', `/v2/manage/app/blobs/${digest}`)).status, 404);
      assert.equal((await registry.ask('DELETE', `/v2/manage/app/blobs/${digest}`)).code, 'BLOB_UNKNOWN');
    });
  });
});
