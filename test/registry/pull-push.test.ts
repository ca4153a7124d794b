/** docker against our daemon against Debian's docker-registry, with skopeo as a witness: what comes out is what went in. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { digestOf } from '#types/digest.ts';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { type Result, run } from '../harness/processes.ts';
import { startRegistry, type TestRegistry } from '../harness/registry.ts';
import { startTokenServer, TOKEN_USER } from '../harness/token-server.ts';

const foreign = process.env['GANTRY_TEST_HOST'] === undefined ? false : 'needs our own daemon';

/** Puts a small image of our own making into a daemon; returns its name. */
async function makeImage(daemon: TestDaemon, name: string, layers: number): Promise<string> {
  const directory = join(daemon.directory, name.replaceAll(/[^a-z0-9]/g, '-'));
  mkdirSync(directory, { recursive: true });
  const steps: string[] = [];
  for (let layer = 0; layer < layers; layer += 1) {
    writeFileSync(join(directory, `file${layer}`), `${name} ${layer} `.repeat(5000));
    steps.push(`COPY file${layer} /`);
  }
  writeFileSync(join(directory, 'Dockerfile'), `FROM scratch\n${steps.join('\n')}\nCMD ["/none"]\n`);
  await daemon.ok('build', '-q', '-t', name, directory);
  return name;
}

async function skopeo(...args: string[]): Promise<string> {
  const result = await run('skopeo', args);
  assert.equal(result.code, 0, `skopeo ${args.join(' ')}: ${result.stderr}`);
  return result.stdout.trim();
}

const rawOf = async (reference: string): Promise<string> =>
  skopeo('inspect', '--raw', '--tls-verify=false', `docker://${reference}`);

describe('pull and push', () => {
  let registry: TestRegistry;
  let daemon: TestDaemon;
  before(async () => {
    registry = await startRegistry();
    daemon = await startDaemon({ bridge: false });
  });
  after(async () => {
    await daemon?.[Symbol.asyncDispose]();
    await registry?.[Symbol.asyncDispose]();
  });

  test('an image made here is pushed, again without upload, and into another repository by mounting', async () => {
    const name = await makeImage(daemon, `${registry.host}/made/one:v1`, 3);
    const first = await daemon.ok('push', name);
    assert.match(first, new RegExp(`^The push refers to repository \\[${registry.host}/made/one\\]`));
    assert.equal(first.match(/: Pushed$/gm)?.length, 3, first);
    assert.match(first, /v1: digest: sha256:[0-9a-f]{64} size: \d+$/);
    const again = await daemon.ok('push', name);
    assert.equal(again.match(/: Layer already exists$/gm)?.length, 3, again);
    await daemon.ok('tag', name, `${registry.host}/made/two:v2`);
    const mounted = await daemon.ok('push', `${registry.host}/made/two:v2`);
    assert.equal(mounted.match(/: Mounted from made\/one$/gm)?.length, 3, mounted);
    assert.match(await daemon.ok('images', '--digests', `${registry.host}/made/two`), /sha256:[0-9a-f]{64}/);
    await skopeo('inspect', '--tls-verify=false', `docker://${registry.host}/made/two:v2`);
  });

  test('what is pulled is pushed with the same digest, schema 2 and OCI, gzip and zstd', async () => {
    const made = await makeImage(daemon, `${registry.host}/round/docker:v`, 2);
    await daemon.ok('push', made);
    for (const [format, compression] of [
      ['v2s2', 'gzip'],
      ['oci', 'gzip'],
      ['oci', 'zstd'],
    ] as const) {
      const source = `${registry.host}/round/${format}-${compression}:v`;
      await skopeo(
        'copy',
        '--src-tls-verify=false',
        '--dest-tls-verify=false',
        '-f',
        format,
        '--dest-compress-format',
        compression,
        '--dest-compress',
        `docker://${made}`,
        `docker://${source}`,
      );
      const before = await rawOf(source);
      await daemon.ok(
        'rmi',
        '-f',
        ...(await daemon.ok('images', '-q', `${registry.host}/*/*`)).split('\n').filter((id) => id !== ''),
      );
      const pulled = await daemon.ok('pull', source);
      assert.match(pulled, /Status: Downloaded newer image for/);
      assert.match(await daemon.ok('pull', source), /Status: Image is up to date for/);
      const target = `${registry.host}/copy/${format}-${compression}:w`;
      await daemon.ok('tag', source, target);
      await daemon.ok('push', target);
      assert.equal(await rawOf(target), before, `${format} ${compression}`);
      const digests = await daemon.inspect(source, '{{join .RepoDigests " "}}');
      assert.equal(digests.match(/sha256:\w+/g)?.length, 2);
      assert.equal(new Set(digests.match(/sha256:\w+/g)).size, 1, digests);
    }
  });

  test('pull by digest, of all tags, and of what is not there', async () => {
    const base = `${registry.host}/tags/image`;
    await makeImage(daemon, `${base}:a`, 1);
    await makeImage(daemon, `${base}:b`, 1);
    assert.match(await daemon.ok('push', '-a', base), /a: digest: [\s\S]*b: digest: /);
    const [digest = ''] = (await daemon.inspect(`${base}:a`, '{{join .RepoDigests " "}}')).split(' ');
    await daemon.ok('rmi', `${base}:a`, `${base}:b`);
    assert.match(await daemon.ok('pull', digest), /Status: Downloaded newer image for .*@sha256:/);
    assert.equal(await daemon.ok('images', '-q', `${base}:a`), '');
    const all = await daemon.ok('pull', '-a', base);
    for (const tag of ['a', 'b']) assert.match(all, new RegExp(`^${tag}: Pulling from tags/image$`, 'm'));
    assert.notEqual(await daemon.ok('images', '-q', `${base}:b`), '');
    const missing = await daemon.docker(['pull', `${base}:none`]);
    assert.equal(
      missing.stderr,
      `Error response from daemon: manifest for ${base}:none not found: manifest unknown: manifest unknown\n`,
    );
    assert.equal((await daemon.docker(['push', `${base}:none`])).stderr, `tag does not exist: ${base}:none\n`);
    assert.match(
      (await daemon.docker(['push', `${registry.host}/nothing`])).stderr,
      /^An image does not exist locally with the tag: /,
    );
    const found = JSON.parse(await daemon.ok('search', '--format', '{{json .}}', `${registry.host}/tags`)) as {
      Name: string;
    };
    assert.equal(found.Name, base);
  });

  test('an index gives the image of the platform, and is pushed whole when all its parts are here', async () => {
    const base = `${registry.host}/multi/image`;
    const directory = join(daemon.directory, 'multi');
    mkdirSync(directory, { recursive: true });
    const entries: object[] = [];
    for (const [architecture, variant] of [
      ['amd64', ''],
      ['arm64', ''],
      ['arm', 'v7'],
    ] as const) {
      writeFileSync(join(directory, 'what'), architecture + variant);
      writeFileSync(join(directory, 'Dockerfile'), 'FROM scratch\nCOPY what /\n');
      await daemon.ok('build', '-q', '-t', `${base}:${architecture}`, directory);
      await daemon.ok('push', `${base}:${architecture}`);
      const config = JSON.parse(
        await skopeo('inspect', '--config', '--raw', '--tls-verify=false', `docker://${base}:${architecture}`),
      ) as object;
      entries.push(
        await putPlatform(base, architecture, { ...config, architecture, ...(variant === '' ? {} : { variant }) }),
      );
    }
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    const index = JSON.stringify({ schemaVersion: 2, mediaType, manifests: entries });
    await put(`/v2/multi/image/manifests/all`, mediaType, index);
    await daemon.ok('rmi', '-f', ...new Set((await daemon.ok('images', '-q', base)).split('\n')));

    const inspect = await daemon.api('GET', `/distribution/${base}:all/json`);
    assert.deepEqual(
      inspect.json<{ Platforms: { architecture: string }[] }>().Platforms.map(({ architecture }) => architecture),
      ['amd64', 'arm64', 'arm'],
    );
    for (const [platform, expected] of [
      ['linux/amd64', 'amd64'],
      ['linux/arm64', 'arm64'],
      ['linux/arm', 'arm'],
    ] as const) {
      await daemon.ok('pull', '--platform', platform, `${base}:all`);
      assert.equal(await daemon.inspect(`${base}:all`, '{{.Architecture}}'), expected);
      await daemon.ok('tag', `${base}:all`, `keep:${expected}`);
    }
    const wrong = await daemon.docker(['pull', '--platform', 'linux/s390x', `${base}:all`]);
    assert.match(wrong.stderr, /no matching manifest for linux\/s390x in the manifest list entries/);
    await daemon.ok('tag', `${base}:all`, `${registry.host}/multi/copy:all`);
    await daemon.ok('push', `${registry.host}/multi/copy:all`);
    assert.equal(await rawOf(`${registry.host}/multi/copy:all`), index);
    await daemon.ok('push', '--platform', 'linux/arm', `${registry.host}/multi/copy:all`);
    assert.match(await rawOf(`${registry.host}/multi/copy:all`), /"layers"/);
  });

  test('an index is carried whole by save, load and push, and by archives of other tools', async () => {
    const base = `${registry.host}/multi/image:all`;
    const index = await rawOf(base);
    const archive = join(daemon.directory, 'whole.tar');
    await daemon.ok('save', '-o', archive, base);
    const listedIn = (text: string): unknown =>
      (JSON.parse(text) as { manifests: { digest: string }[] }).manifests[0]?.digest;
    assert.equal(listedIn((await run('tar', ['-xOf', archive, 'index.json'])).stdout), digestOf(index));
    // Another tool's layout: it makes OCI manifests of docker's, so the index is another one.
    const layout = join(daemon.directory, 'layout');
    await skopeo('copy', '--all', `oci-archive:${archive}:all`, `oci:${layout}:${base}`);
    const theirs = listedIn(readFileSync(join(layout, 'index.json'), 'utf8'));
    const ofLayout = join(daemon.directory, 'layout.tar');
    await run('tar', ['-C', layout, '-cf', ofLayout, '.']);

    const copy = `${registry.host}/multi/loaded:all`;
    for (const [file, expected] of [
      [archive, digestOf(index)],
      [ofLayout, theirs],
    ] as const) {
      await forget(base);
      assert.equal(await daemon.ok('load', '-i', file), `Loaded image: ${base}`);
      assert.equal(await daemon.inspect(base, '{{.Architecture}}'), process.arch === 'arm64' ? 'arm64' : 'amd64');
      await daemon.ok('tag', base, copy);
      await daemon.ok('push', copy);
      assert.equal(digestOf(await rawOf(copy)), expected, `${file}: the index is the same`);
    }

    await forget(base);
    await daemon.ok('load', '--platform', 'linux/arm', '-i', archive);
    assert.equal(await daemon.inspect(base, '{{.Architecture}}'), 'arm');
    const parts = await daemon.api('GET', `/v1.51/images/${base}/json?manifests=1`);
    assert.deepEqual(
      parts.json<{ Manifests: { Available: boolean }[] }>().Manifests.map(({ Available }) => Available),
      [false, false, true],
      'an index whose parts are not all here is known all the same',
    );
    await daemon.ok('tag', base, copy);
    await daemon.ok('push', copy);
    assert.match(await rawOf(copy), /"layers"/);
  });

  /** Removes an image and all that came with its index. */
  const forget = async (name: string): Promise<void> => {
    const ids = new Set((await daemon.ok('images', '-qa', '--no-trunc')).split('\n'));
    ids.delete(await daemon.ok('images', '-q', '--no-trunc', 'busybox'));
    await daemon.ok('rmi', '-f', ...ids);
    assert.notEqual((await daemon.docker(['image', 'inspect', name])).code, 0);
  };

  const put = async (path: string, type: string, body: string | Buffer): Promise<void> => {
    const answer = await fetch(registry.url + path, {
      method: 'PUT',
      headers: { 'content-type': type },
      body: body as string,
    });
    assert.equal(answer.status, 201, await answer.text());
  };

  /** Gives the image of a tag another platform; returns its entry of an index. */
  const putPlatform = async (base: string, tag: string, config: object): Promise<object> => {
    const path = base.slice(registry.host.length + 1);
    const bytes = Buffer.from(JSON.stringify(config));
    const started = await fetch(`${registry.url}/v2/${path}/blobs/uploads/`, { method: 'POST' });
    const location = started.headers.get('location') ?? '';
    await put(`${location.replace(registry.url, '')}&digest=${digestOf(bytes)}`, 'application/octet-stream', bytes);
    const manifest = JSON.parse(await rawOf(`${base}:${tag}`)) as { config: object };
    const text = JSON.stringify({
      ...manifest,
      config: { ...manifest.config, digest: digestOf(bytes), size: bytes.length },
    });
    const mediaType = 'application/vnd.docker.distribution.manifest.v2+json';
    await put(`/v2/${path}/manifests/${tag}`, mediaType, text);
    const { architecture, variant } = config as { architecture: string; variant?: string };
    return {
      mediaType,
      digest: digestOf(text),
      size: text.length,
      platform: { architecture, os: 'linux', ...(variant === undefined ? {} : { variant }) },
    };
  };

  test('a build pulls its base when it is missing, and always with --pull', async () => {
    const base = await makeImage(daemon, `${registry.host}/base/image:v`, 1);
    await daemon.ok('push', base);
    await daemon.ok('rmi', base);
    const directory = join(daemon.directory, 'child');
    mkdirSync(directory);
    writeFileSync(join(directory, 'Dockerfile'), `FROM ${base}\nLABEL a=b\nCOPY --from=${base} /file0 /again\n`);
    assert.match(await daemon.ok('build', directory), /Pulling from base\/image[\s\S]*Successfully built/);
    assert.doesNotMatch(await daemon.ok('build', directory), /Pulling from/);
    assert.match(await daemon.ok('build', '--pull', directory), /Status: Image is up to date/);
    writeFileSync(join(directory, 'Dockerfile'), `FROM ${registry.host}/base/none\n`);
    assert.match((await daemon.docker(['build', directory])).stderr, /manifest for .*base\/none:latest not found/);
  });

  test('run pulls what is missing, and pull and push are events', async () => {
    const since = Math.floor(Date.now() / 1000) - 1;
    const name = `${registry.host}/events/box:v`;
    await daemon.ok('tag', 'busybox', name);
    await daemon.ok('push', name);
    await daemon.ok('rmi', name);
    const result = await daemon.docker([
      'run',
      '--rm',
      '--net',
      'none',
      '--name',
      daemon.name('pulled'),
      name,
      'echo',
      'up',
    ]);
    assert.equal(result.stdout, 'up\n');
    assert.match(result.stderr, /Unable to find image [\s\S]*Status: Downloaded newer image/);
    const events = await daemon.ok(
      'events',
      '--since',
      String(since),
      '--until',
      String(Math.ceil(Date.now() / 1000)),
      '--filter',
      'type=image',
      '--format',
      '{{.Action}} {{.Actor.ID}} {{index .Actor.Attributes "name"}}',
    );
    for (const action of ['push', 'pull'])
      assert.ok(events.split('\n').includes(`${action} ${name} ${registry.host}/events/box`), events);
  });
});

const login = (daemon: TestDaemon, host: string, user: { username: string; password: string }): Promise<Result> =>
  daemon.docker(['login', '-u', user.username, '--password-stdin', host], { input: user.password });

test('Basic credentials: login, denied and allowed', async () => {
  const user = { username: 'bob', password: 'pa ss' };
  await using registry = await startRegistry({ htpasswd: user });
  await using daemon = await startDaemon({ bridge: false });
  const name = `${registry.host}/private/box:v`;
  await daemon.ok('tag', 'busybox', name);
  assert.match((await daemon.docker(['push', name])).stderr, /^no basic auth credentials/);
  assert.match(
    (await daemon.docker(['pull', name])).stderr,
    /Head "http:\/\/.*\/v2\/private\/box\/manifests\/v": no basic auth credentials/,
  );
  const wrong = await login(daemon, registry.host, { ...user, password: 'wrong' });
  assert.match(wrong.stderr, /login attempt to http:\/\/.*\/v2\/ failed with status: 401 Unauthorized/);
  assert.match((await login(daemon, registry.host, user)).stdout, /Login Succeeded/);
  await daemon.ok('push', name);
  await daemon.ok('rmi', name);
  await daemon.ok('pull', name);
});

test('bearer tokens: anonymous pull, push with a login, identity tokens', async () => {
  await using tokens = await startTokenServer();
  await using registry = await startRegistry({ token: tokens.settings });
  await using daemon = await startDaemon({ bridge: false });
  const name = `${registry.host}/team/box:v`;
  await daemon.ok('tag', 'busybox', name);
  assert.match((await daemon.docker(['push', name])).stderr, /denied|unauthorized/);
  const wrong = await login(daemon, registry.host, { ...TOKEN_USER, password: 'wrong' });
  assert.match(wrong.stderr, /Get "http:\/\/.*\/v2\/": unauthorized: incorrect username or password/);
  assert.match((await login(daemon, registry.host, TOKEN_USER)).stdout, /Login Succeeded/);
  await daemon.ok('push', name);
  assert.ok(
    tokens.requests.some(({ method, user }) => method === 'POST' && user === TOKEN_USER.username),
    'the identity token is used',
  );
  assert.ok(tokens.requests.some(({ scopes }) => scopes.includes('repository:team/box:push,pull')));
  await daemon.ok('tag', 'busybox', `${registry.host}/team/mounted:v`);
  assert.match(await daemon.ok('push', `${registry.host}/team/mounted:v`), /Mounted from team\/box/);
  await daemon.ok('logout', registry.host);
  await daemon.ok('rmi', name, `${registry.host}/team/mounted:v`);
  await daemon.ok('pull', name);
});

test('TLS with the certificates of a directory, insecure registries, and a mirror of docker.io', {
  skip: foreign,
}, async () => {
  await using registry = await startRegistry({ clientCertificates: true });
  await using plain = await startRegistry();
  await using seed = await startDaemon({ bridge: false });
  const file = join(seed.directory, 'daemon.json');
  const certificates = join(seed.directory, 'certs.d');
  registry.trustBelow(certificates);
  writeFileSync(
    file,
    JSON.stringify({
      'registry-certs-dir': certificates,
      'registry-hosts': { [registry.host]: { verify: true } },
      'registry-mirrors': [plain.url],
    }),
  );
  await using daemon = await startDaemon({ bridge: false, flags: ['--config-file', file] });
  const name = `${registry.host}/tls/box:v`;
  await daemon.ok('tag', 'busybox', name);
  await daemon.ok('push', name);
  await daemon.ok('tag', 'busybox', `${plain.host}/library/mirrored:v`);
  await daemon.ok('push', `${plain.host}/library/mirrored:v`);
  await daemon.ok('rmi', name, `${plain.host}/library/mirrored:v`);
  await daemon.ok('pull', name);
  assert.match(
    await daemon.ok('pull', 'mirrored:v'),
    /v: Pulling from library\/mirrored[\s\S]*docker\.io\/library\/mirrored:v$/,
  );
});
