/** The API as raw HTTP: versions, headers, errors, tolerant decoding. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('raw API', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  /** Starts a container in the background; returns its name. */
  const start = async (purpose: string, flags: string[], ...command: string[]): Promise<string> => {
    const name = daemon.name(purpose);
    await daemon.ok('run', '-d', '--name', name, ...flags, 'busybox', ...command);
    return name;
  };

  test('ping answers with the negotiation headers', async () => {
    for (const method of ['GET', 'HEAD']) {
      const answer = await daemon.api(method, '/_ping');
      assert.equal(answer.status, 200);
      assert.equal(answer.headers['api-version'], '1.51');
      assert.equal(answer.headers['ostype'], 'linux');
      assert.equal(answer.headers['docker-experimental'], 'false');
      assert.ok(answer.headers['builder-version'] !== undefined);
      assert.match(String(answer.headers['cache-control']), /no-cache/);
      assert.equal(answer.text, method === 'GET' ? 'OK' : '');
    }
  });

  test('versions outside the range are refused with the reason', async () => {
    const low = await daemon.api('GET', '/v1.10/info');
    assert.equal(low.status, 400);
    assert.match(
      low.text,
      /client version 1\.10 is too old\. Minimum supported API version is 1\.24, please upgrade your client to a newer version/,
    );
    const high = await daemon.api('GET', '/v1.99/info');
    assert.equal(high.status, 400);
    assert.match(high.text, /client version 1\.99 is too new\. Maximum supported API version is 1\.51/);
    for (const version of ['/v1.24', '/v1.41', '/v1.51', ''])
      assert.equal((await daemon.api('GET', `${version}/version`)).status, 200);
  });

  test('an unknown path is 404 page not found', async () => {
    const answer = await daemon.api('GET', '/v1.51/no/such/path');
    assert.equal(answer.status, 404);
    assert.deepEqual(answer.json(), { message: 'page not found' });
  });

  test('bad JSON, wrong types and missing bodies are 400', async () => {
    assert.equal((await daemon.api('POST', '/v1.51/containers/create', '{"Image": ')).status, 400);
    const type = await daemon.api('POST', '/v1.51/containers/create', { Image: 5 });
    assert.equal(type.status, 400);
    assert.match(type.text, /cannot unmarshal number into Go struct field/);
    const empty = await daemon.api('POST', '/v1.51/containers/create');
    assert.equal(empty.status, 400);
    const more = await daemon.api('POST', '/v1.51/containers/create', '{} {}');
    assert.equal(more.status, 400);
  });

  test('keys are read in any case and unknown ones ignored', async () => {
    const made = await daemon.api('POST', `/v1.51/containers/create?name=${daemon.name('case')}`, {
      image: 'busybox',
      CMD: ['true'],
      Whatever: { x: 1 },
    });
    assert.equal(made.status, 201, made.text);
    const { Id } = made.json<{ Id: string }>();
    assert.equal((await daemon.api('DELETE', `/v1.51/containers/${Id}`)).status, 204);
  });

  test('statuses of the usual errors', async () => {
    const status = async (method: string, path: string, body?: unknown): Promise<number> =>
      (await daemon.api(method, `/v1.51${path}`, body)).status;
    assert.equal(await status('GET', '/containers/none/json'), 404);
    assert.equal(await status('POST', '/containers/none/start'), 404);
    assert.equal(await status('POST', '/containers/create', { Image: 'no-such-image' }), 404);
    assert.equal(await status('GET', '/images/none/json'), 404);
    assert.equal(await status('POST', '/containers/create?name=!!', { Image: 'busybox' }), 400);
    const name = daemon.name('status');
    assert.equal(
      await status('POST', `/containers/create?name=${name}`, {
        Image: 'busybox',
        Cmd: ['sleep', '1000'],
        HostConfig: { NetworkMode: 'none' },
      }),
      201,
    );
    assert.equal(await status('POST', `/containers/create?name=${name}`, { Image: 'busybox' }), 409);
    assert.equal(await status('POST', `/containers/${name}/start`), 204);
    assert.equal(await status('POST', `/containers/${name}/start`), 304);
    assert.equal(await status('DELETE', `/containers/${name}`), 409);
    assert.equal(await status('POST', `/containers/${name}/stop?t=0`), 204);
    assert.equal(await status('POST', `/containers/${name}/stop`), 304);
    assert.equal(await status('POST', `/containers/${name}/kill`), 409);
    assert.equal(await status('DELETE', `/containers/${name}`), 204);
    assert.equal(await status('GET', '/containers/json?filters=nonsense'), 400);
  });

  test('older versions get the older shapes', async () => {
    const name = await start('shapes', ['--net', 'none'], 'sleep', '1000');
    const old = (await daemon.api('GET', `/v1.24/containers/${name}/json`)).json<{ State: object }>();
    assert.ok('State' in old);
    const list = (await daemon.api('GET', '/v1.24/images/json')).json<{ VirtualSize?: number }[]>();
    assert.ok((list[0]?.VirtualSize ?? 0) > 0);
    const now = (await daemon.api('GET', '/v1.51/images/json')).json<object[]>();
    assert.ok(!('VirtualSize' in (now[0] ?? {})));
  });

  test('info and version tell what programs ask for', async () => {
    const info = (await daemon.api('GET', '/v1.51/info')).json();
    assert.equal(info['OSType'], 'linux');
    assert.equal(info['Driver'], 'overlay2');
    assert.ok(Number(info['NCPU']) > 0 && Number(info['MemTotal']) > 0);
    assert.match(String(info['CgroupVersion']), /^[12]$/);
    const version = (await daemon.api('GET', '/v1.51/version')).json();
    assert.equal(version['ApiVersion'], '1.51');
    assert.equal(version['MinAPIVersion'], '1.24');
    assert.ok(Array.isArray(version['Components']));
  });
});
