/** What the API refuses, with docker's statuses and texts; found by giving the same requests to both engines. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type ApiAnswer, request } from '../harness/api.ts';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';

describe('refusals', () => {
  let daemon: TestDaemon;
  before(async () => {
    daemon = await startDaemon();
  });
  after(() => daemon?.[Symbol.asyncDispose]());

  const api = (method: string, path: string, body?: unknown): Promise<ApiAnswer> =>
    request(daemon.socketPath, { method, path: `/v1.51${path}`, body });
  const create = (HostConfig: object, config: object = {}): Promise<ApiAnswer> =>
    api('POST', '/containers/create', {
      Image: 'busybox',
      Cmd: ['sleep', '1000'],
      ...config,
      HostConfig: { NetworkMode: 'none', ...HostConfig },
    });
  const said = (answer: ApiAnswer): [number, string] => [answer.status, answer.json<{ message: string }>().message];

  /** The answer to the start of a container that could be created, which is then removed. */
  async function start(hostConfig: object, config: object = {}): Promise<ApiAnswer> {
    const created = await create(hostConfig, config);
    assert.equal(created.status, 201, created.text);
    const { Id } = created.json<{ Id: string }>();
    const answer = await api('POST', `/containers/${Id}/start`);
    assert.equal((await api('DELETE', `/containers/${Id}?force=1&v=1`)).status, 204);
    return answer;
  }

  test('references to other containers are looked up at create, without looking like a missing image', async () => {
    assert.deepEqual(said(await create({ VolumesFrom: ['none'] })), [400, 'No such container: none']);
    assert.deepEqual(said(await create({ PidMode: 'container:none' })), [400, 'No such container: none']);
    assert.deepEqual(said(await create({ IpcMode: 'container:none' })), [400, 'No such container: none']);
  });

  test('a donor of a namespace must run, and share', async () => {
    const { Id } = (await create({})).json<{ Id: string }>();
    const wait = `container ${Id} is not running`;
    assert.deepEqual(said(await start({ IpcMode: `container:${Id}` })), [409, `failed to join IPC namespace: ${wait}`]);
    assert.deepEqual(said(await start({ PidMode: `container:${Id}` })), [500, `failed to join PID namespace: ${wait}`]);
    assert.equal((await api('POST', `/containers/${Id}/start`)).status, 204);
    assert.deepEqual(said(await start({ IpcMode: `container:${Id}` })), [
      400,
      `failed to join IPC namespace: container ${Id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`,
    ]);
    assert.equal((await start({ PidMode: `container:${Id}` })).status, 204);
    await api('DELETE', `/containers/${Id}?force=1`);
  });

  test('log drivers are checked at create, their values at start', async () => {
    const log = (Type: string, Config: object = {}): object => ({ LogConfig: { Type, Config } });
    assert.deepEqual(said(await create(log('none-such'))), [
      400,
      'error looking up logging plugin none-such: plugin "none-such" not found',
    ]);
    const failed = 'failed to create task for container: failed to initialize logging driver';
    assert.deepEqual(said(await start(log('json-file', { 'max-size': 'x' }))), [500, `${failed}: invalid size: 'x'`]);
    assert.deepEqual(said(await start(log('local', { compress: 'x' }))), [
      500,
      `${failed}: error reading compress log option: strconv.ParseBool: parsing "x": invalid syntax`,
    ]);
  });

  test('a shim is a runtime by its own name, a path to one is not', async () => {
    assert.equal((await start({ Runtime: 'io.containerd.runc.v2' })).status, 204);
    assert.deepEqual(said(await create({ Runtime: '/bin/true' })), [400, 'unknown or invalid runtime name: /bin/true']);
    const [status, message] = said(await start({ Runtime: 'io.none.v7' }));
    assert.equal(status, 500);
    assert.match(message, /failed to resolve runtime path: runtime "io.none.v7" binary not installed/);
  });

  test('a file in the place of the working directory is found at create', async () => {
    assert.deepEqual(said(await create({}, { WorkingDir: '/bin/busybox' })), [
      500,
      'Cannot mkdir: /bin/busybox is not a directory',
    ]);
  });

  test('an exec is refused for its user and its detach keys when it is created', async () => {
    const { Id } = (await create({}, { StopSignal: '99' })).json<{ Id: string }>();
    await api('POST', `/containers/${Id}/start`);
    const exec = (body: object): Promise<ApiAnswer> =>
      api('POST', `/containers/${Id}/exec`, { Cmd: ['true'], ...body });
    assert.deepEqual(said(await exec({ User: 'none' })), [
      400,
      'unable to find user none: no matching entries in passwd file',
    ]);
    assert.deepEqual(said(await exec({ DetachKeys: 'bad' })), [500, 'Invalid escape keys (bad) provided']);
    const { Id: execId } = (await exec({ WorkingDir: 'relative' })).json<{ Id: string }>();
    await api('POST', `/exec/${execId}/start`, {});
    assert.equal((await api('GET', `/exec/${execId}/json`)).json()['ExitCode'], 128);

    const said77 = said(await api('POST', `/containers/${Id}/kill?signal=77`));
    assert.equal(said77[0], 400);
    assert.match(said77[1], /^cannot kill container: .*: the linux daemon does not support signal 77$/);
    assert.deepEqual(said(await api('POST', '/containers/none/kill')), [
      404,
      'cannot kill container: none: No such container: none',
    ]);
    // Its stop signal does not exist: it is killed instead.
    assert.equal((await api('POST', `/containers/${Id}/stop`)).status, 204);
    await api('DELETE', `/containers/${Id}?force=1`);
  });

  test('filters name the value they do not know', async () => {
    const list = async (filters: object): Promise<[number, string]> =>
      said(await api('GET', `/containers/json?filters=${encodeURIComponent(JSON.stringify(filters))}`));
    assert.deepEqual(await list({ status: ['x'] }), [
      400,
      "invalid filter 'status=x': invalid value for state (x): must be one of created, running, paused, restarting, removing, exited, dead",
    ]);
    assert.deepEqual(await list({ expose: ['1-x'] }), [
      500,
      'error while looking up for expose 1-x: strconv.ParseUint: parsing "x": invalid syntax',
    ]);
    const prune = await api('POST', `/containers/prune?filters=${encodeURIComponent('{"until":["x"]}')}`);
    assert.deepEqual(said(prune), [400, 'failed to parse value as time or duration: "x"']);
    const events = await api('GET', `/events?until=1&filters=${encodeURIComponent('{"nothing":["x"]}')}`);
    assert.equal(events.status, 200);
  });

  test('numbers, times and signals in queries', async () => {
    const { Id } = (await create({})).json<{ Id: string }>();
    assert.equal((await api('POST', `/containers/${Id}/start`, { x: 1 })).status, 204);
    const at = `/containers/${Id}`;
    const atoi = 'strconv.Atoi: parsing "x": invalid syntax';
    assert.deepEqual(said(await api('GET', '/containers/json?limit=x')), [500, atoi]);
    assert.deepEqual(said(await api('POST', `${at}/stop?t=x`)), [500, atoi]);
    const [status, message] = said(await api('POST', `${at}/stop?signal=FOO`));
    assert.equal(status, 500);
    assert.match(message, /^cannot stop container: [0-9a-f]+: invalid signal: FOO$/);
    const time = 'strconv.ParseInt: parsing "x": invalid syntax';
    assert.deepEqual(said(await api('GET', '/events?since=x')), [500, time]);
    const resize = async (query: string): Promise<unknown> => said(await api('POST', `${at}/resize?${query}`));
    assert.deepEqual(await resize('h=x&w=1'), [400, 'invalid resize height "x": invalid syntax']);
    assert.deepEqual(await resize('h=1&w=99999999999'), [
      400,
      'invalid resize width "99999999999": value out of range',
    ]);
    await api('DELETE', `${at}?force=1`);
  });

  test('a request without a body is one of nothing, and an absolute address is taken for its path', async () => {
    const { Id } = (await create({})).json<{ Id: string }>();
    assert.equal((await api('POST', `/containers/${Id}/start`)).status, 204);
    assert.deepEqual(said(await api('POST', `/containers/${Id}/exec`)), [400, 'No exec command specified']);
    assert.equal((await api('POST', `/containers/${Id}/update`)).status, 200);
    const absolute = await request(daemon.socketPath, { method: 'GET', path: 'http://any.host/_ping' });
    assert.deepEqual([absolute.status, absolute.text], [200, 'OK']);
    await api('DELETE', `/containers/${Id}?force=1`);
  });

  test('changes of a commit are told without line numbers of a file', async () => {
    const { Id } = (await create({})).json<{ Id: string }>();
    const commit = (changes: string): Promise<ApiAnswer> =>
      api('POST', `/commit?container=${Id}&changes=${encodeURIComponent(changes)}`, {});
    assert.deepEqual(said(await commit('FOO x')), [400, 'FOO is not a valid change command']);
    assert.deepEqual(said(await commit('ENV')), [400, 'ENV requires at least one argument']);
    await api('DELETE', `/containers/${Id}`);
  });

  test('a paused container can be removed by force', async () => {
    for (let round = 0; round < 5; round += 1) {
      const { Id } = (await create({})).json<{ Id: string }>();
      await api('POST', `/containers/${Id}/start`);
      await api('POST', `/containers/${Id}/pause`);
      const removed = await api('DELETE', `/containers/${Id}?force=1`);
      assert.deepEqual([removed.status, removed.text], [204, '']);
    }
  });
});
