/** Pulls from registries that break off, lie, stall or send nonsense: resumed or refused, and nothing left behind. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { digestOf } from '#types/digest.ts';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { type FaultyRegistry, fakeLayer, refuse, startFaultyRegistry } from '../harness/faulty-registry.ts';
import { eventually } from '../harness/processes.ts';

const foreign = process.env['GANTRY_TEST_HOST'] !== undefined;

/** Sends the first `count` bytes of a blob as if all would come, then breaks off. */
function breakAfter(response: ServerResponse, bytes: Buffer, count: number, start = 0): void {
  if (start > 0) {
    response.statusCode = 206;
    response.setHeader('content-range', `bytes ${start}-${bytes.length - 1}/${bytes.length}`);
  }
  response.setHeader('content-length', bytes.length - start);
  response.write(bytes.subarray(start, start + count), () => setImmediate(() => response.socket?.resetAndDestroy()));
}

/** What is half-written and cannot be continued by a later pull. */
function leftovers(daemon: TestDaemon): string[] {
  return readdirSync(join(daemon.dataRoot, 'ingest')).filter((name) => !name.startsWith('partial-'));
}

describe('pull from a faulty registry', { skip: foreign ? 'needs our own daemon and its data root' : false }, () => {
  let daemon: TestDaemon;
  let registry: FaultyRegistry;
  before(async () => {
    daemon = await startDaemon({ bridge: false, busybox: false });
  });
  after(() => daemon?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    registry = await startFaultyRegistry();
  });
  afterEach(async () => {
    const ids = await daemon.ok('images', '-aq');
    if (ids !== '') await daemon.ok('rmi', '-f', ...new Set(ids.split('\n')));
    await registry[Symbol.asyncDispose]();
  });

  const name = (tag: string): string => `${registry.host}/x:${tag}`;
  const pullFails = async (tag: string, expected: RegExp): Promise<void> => {
    const result = await daemon.docker(['pull', name(tag)]);
    assert.match(result.stderr, expected);
    assert.equal(result.code, 1, result.stdout);
    assert.equal(await daemon.ok('images', '-aq'), '');
    assert.deepEqual(leftovers(daemon), []);
  };

  test('a connection reset in mid-blob is continued by range', async () => {
    const layer = fakeLayer('big', 3_000_000);
    registry.addImage('v', [layer]);
    registry.on(/^GET .*blobs/, (request, response, seen) => {
      const bytes = registry.blobs.get(digestOf(layer.blob)) as Buffer;
      if (!request.url?.endsWith(digestOf(bytes)) || seen > 3) return false;
      const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      breakAfter(response, bytes, 700_000, start);
      return true;
    });
    await daemon.ok('pull', name('v'));
    const ranges = registry.headers.flatMap(({ range }) =>
      range === undefined ? [] : [Number(range.slice(6, -8) || 0)],
    );
    assert.ok(registry.headers.filter(({ range }) => range !== undefined).length >= 2, `${ranges}`);
    assert.equal(await daemon.inspect(name('v'), '{{index .RootFS.Layers 0}}'), digestOf(layer.tar));
  });

  test('a registry without ranges is read again from the start', async () => {
    const layer = fakeLayer('again', 1_000_000);
    registry.addImage('v', [layer]);
    registry.on(new RegExp(`^GET .*blobs/${digestOf(layer.blob)}`), (_request, response, seen) => {
      if (seen === 1) breakAfter(response, layer.blob, 300_000);
      else response.setHeader('content-length', layer.blob.length).end(layer.blob);
      return true;
    });
    await daemon.ok('pull', name('v'));
  });

  test('a blob with another content than its digest is refused', async () => {
    const layer = fakeLayer('honest', 10_000);
    registry.addImage('v', [layer]);
    const wrong = Buffer.from(layer.blob);
    wrong.writeUInt8(wrong.readUInt8(5000) ^ 1, 5000);
    registry.blobs.set(digestOf(layer.blob), wrong);
    await pullFails('v', /unexpected commit digest|verification failed|digest/);
  });

  test('a layer that unpacks to another diffID is refused', async () => {
    const layer = fakeLayer('a', 1000);
    registry.addImage('v', [layer], { rootfs: { type: 'layers', diff_ids: [digestOf('something else')] } });
    await pullFails('v', /diffID|diff ID|does not match|layers from manifest/);
  });

  test('a Content-Length that is not the descriptor’s is refused at once', async () => {
    const layer = fakeLayer('a', 1000);
    registry.addImage('v', [layer]);
    registry.on(new RegExp(`blobs/${digestOf(layer.blob)}`), (_request, response) => {
      response.setHeader('content-length', 2 ** 50);
      response.write(layer.blob);
      return true;
    });
    await pullFails('v', /blob has 1125899906842624 bytes, its descriptor says/);
  });

  test('a body that goes on for ever ends at the descriptor’s size', async () => {
    const layer = fakeLayer('a', 1000);
    registry.addImage('v', [layer]);
    registry.on(new RegExp(`blobs/${digestOf(layer.blob)}`), (_request, response) => {
      const more = (): boolean => !response.destroyed && response.write(Buffer.alloc(65_536)) && more();
      response.on('drain', more);
      more();
      return true;
    });
    await pullFails('v', /is larger than \d+ bytes/);
  });

  test('429 with Retry-After and 503 are waited for', async () => {
    registry.addImage('v', [fakeLayer('a', 1000)]);
    registry.on(/^HEAD .*manifests/, (_request, response, seen) => {
      if (seen > 1) return false;
      response.setHeader('retry-after', '1');
      refuse(response, 429, 'TOOMANYREQUESTS', 'slow down');
      return true;
    });
    registry.on(/^GET .*blobs/, (_request, response, seen) => {
      if (seen > 2) return false;
      response.statusCode = 503;
      response.end();
      return true;
    });
    await daemon.ok('pull', name('v'));
  });

  test('429 without an end is told', async () => {
    registry.on(/manifests/, (_request, response) => {
      refuse(response, 429, 'TOOMANYREQUESTS', 'You have reached your pull rate limit.');
      return true;
    });
    await pullFails('v', /toomanyrequests: You have reached your pull rate limit\./);
  });

  test('an upload that breaks off is tried again, and that is told', async () => {
    registry.addImage('v', [fakeLayer('big', 1_200_000)]);
    await daemon.ok('pull', name('v'));
    const uploads = '/v2/x/blobs/uploads/';
    registry.on(/^HEAD .*blobs/, (_request, response) => {
      refuse(response, 404, 'BLOB_UNKNOWN', 'blob unknown to registry');
      return true;
    });
    registry.on(/^PATCH/, (request, _response, seen) => {
      if (seen === 1) request.socket.resetAndDestroy();
      return seen === 1;
    });
    registry.on(/^(POST|PATCH|PUT) /, (request, response) => {
      response.statusCode = request.method === 'PUT' ? 201 : 202;
      response.setHeader('location', `${uploads}1`);
      request.resume().on('end', () => response.end());
      return true;
    });
    const pushed = await daemon.ok('push', name('v'));
    assert.match(pushed, /^[0-9a-f]{12}: Retrying in 1 second$/m);
    assert.match(pushed, /^[0-9a-f]{12}: Pushed$/m);
    assert.equal(registry.count(/^PATCH/), 2);
  });

  test('authorization does not follow a redirect to another host', async () => {
    await using storage = await startFaultyRegistry();
    const layer = fakeLayer('elsewhere', 50_000);
    registry.addImage('v', [layer]);
    storage.addBlob(layer.blob);
    registry.on(/^GET \/v2\/$/, (_request, response) => {
      response.setHeader('www-authenticate', 'Basic realm="x"');
      response.statusCode = 401;
      response.end();
      return true;
    });
    registry.on(new RegExp(`blobs/${digestOf(layer.blob)}`), (request, response) => {
      response.statusCode = 307;
      response.setHeader('location', `http://${storage.host}${request.url}`);
      response.end();
      return true;
    });
    const auth = Buffer.from(JSON.stringify({ username: 'me', password: 'hidden!' })).toString('base64url');
    const answer = await daemon.api('POST', `/images/create?fromImage=${registry.host}/x&tag=v`, undefined);
    assert.match(answer.text, /no basic auth credentials/);
    const { request } = await import('../harness/api.ts');
    const pulled = await request(daemon.socketPath, {
      method: 'POST',
      path: `/images/create?fromImage=${registry.host}/x&tag=v`,
      headers: { 'X-Registry-Auth': auth, 'X-Meta-Ticket': '42' },
    });
    assert.match(pulled.text, /Downloaded newer image/);
    assert.ok(registry.headers.some(({ authorization }) => authorization?.startsWith('Basic ')));
    assert.deepEqual(
      storage.headers.map(({ authorization }) => authorization),
      [undefined],
    );
    assert.ok(registry.headers.some((headers) => headers['x-meta-ticket'] === '42'));
    assert.ok(storage.headers.every((headers) => headers['x-meta-ticket'] === undefined));
    assert.doesNotMatch(daemon.log, /hidden!/);
  });

  test('a client that leaves ends its pull of a registry that hangs', async () => {
    const layer = fakeLayer('slow', 100_000);
    registry.addImage('v', [layer]);
    let closed = false;
    registry.on(new RegExp(`blobs/${digestOf(layer.blob)}`), (_request, response) => {
      response.setHeader('content-length', layer.blob.length);
      response.write(layer.blob.subarray(0, 1000));
      response.on('close', () => {
        closed = true;
      });
      return true;
    });
    const pulling = daemon.startDocker(['pull', name('v')]);
    await eventually(() => registry.count(new RegExp(`blobs/${digestOf(layer.blob)}`)) > 0);
    pulling.child.kill('SIGKILL');
    await eventually(() => closed, { what: 'the daemon to close its connection to the registry' });
    await eventually(() => leftovers(daemon).length === 0);
  });

  test('manifests of absurd size, depth, number and shape are refused', async () => {
    const layer = fakeLayer('a', 100);
    const parts = registry.imageParts([layer]);
    registry.addManifest('deep', { ...parts, layers: Array(1000).fill(parts.layers[0]) });
    await pullFails('deep', /max depth exceeded/);
    registry.addManifest('many', { ...parts, layers: Array(100_000).fill(parts.layers[0]) });
    await pullFails('many', /manifest of \d+ bytes is larger than 4194304 bytes/);
    registry.addManifest('huge', { ...parts, layers: [{ ...parts.layers[0], size: 2 ** 52 }] });
    await pullFails('huge', /layer sha256:\w+ of 4503599627370496 bytes is larger than/);
    registry.addManifest('negative', { ...parts, layers: [{ ...parts.layers[0], size: -1 }] });
    await pullFails('negative', /is not a valid number of bytes/);
    registry.addManifest('text', Buffer.from('<html>'));
    await pullFails('text', /invalid manifest: not JSON/);
    registry.addManifest('artifact', {
      ...parts,
      config: { ...parts.config, mediaType: 'application/vnd.example.thing' },
    });
    await pullFails('artifact', /unsupported media type application\/vnd\.example\.thing/);
    const foreignType = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';
    registry.addManifest('foreign', { ...parts, layers: [{ ...parts.layers[0], mediaType: foreignType }] });
    await pullFails('foreign', /is a foreign layer/);
    registry.addManifest(
      'old',
      { schemaVersion: 1, fsLayers: [] },
      'application/vnd.docker.distribution.manifest.v1+prettyjws',
    );
    await pullFails(
      'old',
      /Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed/,
    );
    registry.on(/^GET .*manifests\/endless/, (_request, response) => {
      const more = (): boolean => !response.destroyed && response.write(Buffer.alloc(65_536, ' ')) && more();
      response.on('drain', more);
      more();
      return true;
    });
    await pullFails('endless', /manifest is larger than 4194304 bytes/);
  });

  test('a cyclic index is refused, as is one without our platform', async () => {
    const descriptor = { mediaType: 'application/vnd.oci.image.index.v1+json', size: 100 };
    // A digest cannot be in its own document: the cycle is made by a registry that lies.
    const inner = registry.addIndex('inner', [{ ...descriptor, digest: digestOf('x') }]);
    registry.addIndex('cycle', [inner]);
    registry.on(/manifests\/sha256/, (_request, response) => {
      const found = registry.manifests.get('inner') as { mediaType: string; bytes: Buffer };
      response.setHeader('content-type', found.mediaType).end(found.bytes);
      return true;
    });
    await pullFails('cycle', /manifest verification failed|nested too deeply/);
    let bottom = registry.addImage('image', [fakeLayer('a', 10)]);
    for (let depth = 0; depth < 8; depth += 1) bottom = registry.addIndex(`level${depth}`, [bottom]);
    await using honest = await startFaultyRegistry();
    for (const [key, value] of registry.manifests) honest.manifests.set(key, value);
    const result = await daemon.docker(['pull', `${honest.host}/x:level7`]);
    assert.match(result.stderr, /indexes are nested too deeply/);
    honest.addIndex('other', [{ ...bottom, platform: { os: 'linux', architecture: 's390x' } }]);
    const none = await daemon.docker(['pull', `${honest.host}/x:other`]);
    assert.match(none.stderr, /no matching manifest for linux\/\w+ in the manifest list entries/);
  });

  test('two pulls of one image share the work, and go on when one client leaves', async () => {
    const layer = fakeLayer('shared', 400_000);
    registry.addImage('v', [layer]);
    const held: (() => void)[] = [];
    registry.on(new RegExp(`blobs/${digestOf(layer.blob)}`), (request, response) => {
      held.push(() => registry.serve(request, response));
      return true;
    });
    const first = daemon.startDocker(['pull', name('v')]);
    await eventually(() => held.length === 1);
    const second = daemon.startDocker(['pull', name('v')]);
    await second.shows(/Pulling from x/);
    // The second has resolved the tag itself; it now waits for the layer that the first one fetches.
    await eventually(() => registry.count(/^HEAD .*manifests\/v/) === 2);
    await eventually(() => registry.count(/^GET .*manifests/) >= 2);
    first.child.kill('SIGKILL');
    for (const release of held) release();
    const result = await second.done;
    assert.equal(result.code, 0, result.stderr);
    assert.match(result.stdout, /Downloaded newer image/);
    assert.equal(registry.count(new RegExp(`GET .*blobs/${digestOf(layer.blob)}`)), 1);
  });

  test('a mirror is asked first, with its own credentials, and the registry when it fails', async () => {
    await using mirror = await startFaultyRegistry();
    const layer = fakeLayer('mirrored', 10_000);
    registry.addImage('v', [layer]);
    for (const [digest, bytes] of registry.blobs) mirror.blobs.set(digest, bytes);
    for (const [key, value] of registry.manifests) mirror.manifests.set(key, value);
    mirror.on(/^GET \/v2\/(\?|$)/, (_request, response) => {
      response.setHeader('www-authenticate', 'Basic realm="mirror"');
      response.statusCode = 401;
      response.end();
      return true;
    });
    const { writeFileSync } = await import('node:fs');
    const { mkdtempSync } = await import('node:fs');
    const directory = mkdtempSync(join(daemon.directory, 'mirror-'));
    const file = join(directory, 'daemon.json');
    const entry = { url: `http://${mirror.host}`, prefix: 'cache', username: 'm', password: 'secret' };
    writeFileSync(file, JSON.stringify({ 'registry-hosts': { [registry.host]: { mirrors: [entry] } } }));
    await using other = await startDaemon({ bridge: false, busybox: false, flags: ['--config-file', file] });
    await other.ok('pull', name('v'));
    assert.equal(registry.requests.length, 0);
    assert.ok(
      mirror.requests.some((line) =>
        line.startsWith(`HEAD /v2/cache/x/manifests/v?ns=${encodeURIComponent(registry.host)}`),
      ),
      mirror.requests.join('\n'),
    );
    const basic = `Basic ${Buffer.from('m:secret').toString('base64')}`;
    assert.ok(mirror.headers.some(({ authorization }) => authorization === basic));
    await other.ok('rmi', name('v'));
    mirror.on(/blobs/, (_request, response) => {
      refuse(response, 404, 'BLOB_UNKNOWN', 'blob unknown to registry');
      return true;
    });
    await other.ok('pull', name('v'));
    assert.ok(registry.count(/blobs/) > 0);
    assert.ok(registry.headers.every(({ authorization }) => authorization === undefined));
  });
});
