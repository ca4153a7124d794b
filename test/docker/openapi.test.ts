/** Answers of the API, checked against the Engine's own OpenAPI file. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { violations } from '../harness/openapi.ts';

describe('answers conform to the OpenAPI', () => {
  let daemon: TestDaemon;
  let name: string;
  before(async () => {
    daemon = await startDaemon();
    name = daemon.name('subject');
    await daemon.ok(
      ...['run', '-d', '--name', name, '-p', '127.0.0.1::80', '-v', '/data', '--health-cmd', 'true', '-m', '64m'],
      ...['--health-interval', '200ms', '--label', 'a=b', '--restart', 'on-failure:3', 'busybox', 'sleep', '1000'],
    );
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  /** Path template of the OpenAPI → concrete path. */
  const READS: Readonly<Record<string, () => string>> = {
    'GET /containers/json': () => '/containers/json?all=1&size=1',
    'GET /containers/{id}/json': () => `/containers/${name}/json?size=1`,
    'GET /containers/{id}/top': () => `/containers/${name}/top`,
    'GET /containers/{id}/changes': () => `/containers/${name}/changes`,
    'GET /images/json': () => '/images/json',
    'GET /images/{name}/json': () => '/images/busybox/json',
    'GET /images/{name}/history': () => '/images/busybox/history',
    'GET /info': () => '/info',
    'GET /version': () => '/version',
    'GET /system/df': () => '/system/df',
    'GET /volumes': () => '/volumes',
    'GET /networks': () => '/networks',
    'GET /networks/{id}': () => '/networks/bridge',
  };

  for (const [operation, path] of Object.entries(READS)) {
    test(operation, async () => {
      const answer = await daemon.api('GET', `/v1.51${path()}`);
      const found = violations(operation, answer.status, JSON.parse(answer.text));
      assert.deepEqual(found, []);
    });
  }

  test('one reading of the statistics', async () => {
    const answer = await daemon.api('GET', `/v1.51/containers/${name}/stats?stream=false`);
    assert.deepEqual(violations('GET /containers/{id}/stats', answer.status, answer.json()), []);
  });

  test('create, wait, update, exec and their errors', async () => {
    const other = daemon.name('made');
    const expect = async (operation: string, path: string, status: number, body?: unknown): Promise<void> => {
      const answer = await daemon.api(operation.split(' ')[0] ?? 'GET', `/v1.51${path}`, body);
      assert.equal(answer.status, status, `${operation}: ${answer.text}`);
      if (answer.text !== '') assert.deepEqual(violations(operation, status, JSON.parse(answer.text)), []);
    };
    const config = { Image: 'busybox', Cmd: ['true'], HostConfig: { NetworkMode: 'none' } };
    await expect('POST /containers/create', `/containers/create?name=${other}`, 201, config);
    await expect('POST /containers/create', `/containers/create?name=${other}`, 409, config);
    await expect('POST /containers/{id}/start', `/containers/${other}/start`, 204);
    await expect('POST /containers/{id}/wait', `/containers/${other}/wait`, 200);
    await expect('POST /containers/{id}/update', `/containers/${name}/update`, 200, {
      Memory: 33554432,
      MemorySwap: 67108864,
    });
    await expect('POST /containers/{id}/exec', `/containers/${name}/exec`, 201, { Cmd: ['true'] });
    await expect('POST /containers/{id}/exec', `/containers/${other}/exec`, 409, { Cmd: ['true'] });
    await expect('GET /containers/{id}/json', '/containers/none-such/json', 404);
    await expect('DELETE /containers/{id}', `/containers/${other}`, 204);
  });
});
