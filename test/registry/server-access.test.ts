import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, sign } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, run } from '../harness/processes.ts';
import { type Answer, sha256, startRegistry, type TestRegistry } from '../harness/registry-server.ts';

const basic = (user: string, password: string): Record<string, string> => ({
  authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
});
const bearer = (token: string): Record<string, string> => ({ authorization: `Bearer ${token}` });

const RIGHTS = {
  groups: { dev: ['alice'] },
  administrators: ['root'],
  rules: [
    { repositories: 'public/**', to: ['everyone'], actions: ['pull'] },
    { repositories: 'public/**', to: ['@dev'], actions: ['push'] },
    { repositories: '${user}/*', to: ['users'], actions: ['*'] },
  ],
};

describe('access to the registry', () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-access-'));
  const users = join(directory, 'htpasswd');
  const rights = join(directory, 'rights.json');
  const layout = join(directory, 'layout');
  before(async () => {
    for (const [flags, user, password] of [
      ['-cbB', 'alice', 'wonder'],
      ['-bB', 'bob', 'builder'],
      ['-bB', 'root', 'secret'],
    ] as const) {
      const made = await run('htpasswd', [flags, users, user, password]);
      assert.equal(made.code, 0, made.stderr);
    }
    writeFileSync(rights, JSON.stringify(RIGHTS));
    assert.equal((await run('umoci', ['init', '--layout', layout])).code, 0);
    assert.equal((await run('umoci', ['new', '--image', `${layout}:v1`])).code, 0);
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  const skopeo = (...args: string[]): ReturnType<typeof run> =>
    run('skopeo', args, { env: { REGISTRY_AUTH_FILE: join(directory, 'auth.json') } });

  describe('with a password file', () => {
    let registry: TestRegistry;
    before(async () => {
      registry = await startRegistry('--htpasswd', users, '--rights', rights, '--realm', 'Our registry');
    });
    after(() => registry?.[Symbol.asyncDispose]());

    test('a challenge without credentials, and with wrong ones', async () => {
      for (const headers of [
        {},
        basic('alice', 'wrong'),
        basic('nobody', 'wonder'),
        { authorization: 'Basic !!!' },
        { authorization: 'Digest x' },
        bearer('x'),
      ]) {
        const answer = await registry.ask('GET', '/v2/', { headers });
        assert.deepEqual([answer.status, answer.code], [401, 'UNAUTHORIZED']);
        assert.equal(answer.headers['www-authenticate'], 'Basic realm="Our registry"');
      }
      assert.equal((await registry.ask('GET', '/v2/', { headers: basic('alice', 'wonder') })).status, 200);
    });

    test('rights: own names, public ones, those of others', async () => {
      const ask = (method: string, path: string, user: string, password: string): Promise<Answer> =>
        registry.ask(method, path, { body: '', headers: basic(user, password) });
      assert.equal((await ask('POST', '/v2/alice/app/blobs/uploads/', 'alice', 'wonder')).status, 202);
      assert.equal((await ask('POST', '/v2/bob/app/blobs/uploads/', 'alice', 'wonder')).code, 'DENIED');
      assert.equal((await ask('POST', '/v2/public/app/blobs/uploads/', 'alice', 'wonder')).status, 202);
      assert.equal((await ask('POST', '/v2/public/app/blobs/uploads/', 'bob', 'builder')).code, 'DENIED');
      assert.equal((await ask('POST', '/v2/anything/blobs/uploads/', 'root', 'secret')).status, 202);
    });

    test('a mount takes only what the caller may read', async () => {
      const digest = await registry.pushBlob('bob/app', "bob's", basic('bob', 'builder'));
      for (const query of [`mount=${digest}&from=bob/app`, `mount=${digest}`]) {
        const answer = await registry.ask('POST', `/v2/alice/app/blobs/uploads/?${query}`, {
          body: '',
          headers: basic('alice', 'wonder'),
        });
        assert.equal(answer.status, 202);
      }
      assert.equal(
        (await registry.ask('HEAD', `/v2/alice/app/blobs/${digest}`, { headers: basic('alice', 'wonder') })).status,
        404,
      );
    });

    test('everyone may pull what is public, and each sees in the catalogue what is his', async () => {
      await registry.pushBlob('public/app', 'open', basic('alice', 'wonder'));
      assert.equal((await registry.ask('GET', `/v2/public/app/blobs/${sha256('open')}`)).text, 'open');
      const copied = await skopeo(
        'copy',
        '--dest-tls-verify=false',
        '--dest-creds',
        'root:secret',
        `oci:${layout}:v1`,
        `docker://${registry.host}/public/app:v1`,
      );
      assert.equal(copied.code, 0, copied.stderr);
      assert.equal(
        (
          await skopeo(
            'copy',
            '--dest-tls-verify=false',
            '--dest-creds',
            'bob:builder',
            `oci:${layout}:v1`,
            `docker://${registry.host}/bob/app:v1`,
          )
        ).code,
        0,
      );
      const seen = async (headers: Record<string, string>): Promise<string[]> =>
        JSON.parse((await registry.ask('GET', '/v2/_catalog', { headers })).text).repositories;
      assert.deepEqual(await seen(basic('bob', 'builder')), ['bob/app', 'public/app']);
      assert.deepEqual(await seen(basic('alice', 'wonder')), ['public/app']);
      assert.deepEqual(await seen(basic('root', 'secret')), ['bob/app', 'public/app']);
    });

    test('pages show what the visitor may pull, escaped, under a strict policy', async () => {
      const anonymous = await registry.ask('GET', '/ui/');
      assert.equal(anonymous.status, 200);
      assert.match(anonymous.text, /\/ui\/r\/public\/app/);
      assert.doesNotMatch(anonymous.text, /bob\/app/);
      assert.match(
        String(anonymous.headers['content-security-policy']),
        /^default-src 'none'; style-src 'sha256-[^']+'; /,
      );
      assert.match((await registry.ask('GET', '/ui/', { headers: basic('bob', 'builder') })).text, /\/ui\/r\/bob\/app/);
      const hidden = await registry.ask('GET', '/ui/r/bob/app');
      assert.deepEqual([hidden.status, hidden.headers['www-authenticate']], [401, 'Basic realm="Our registry"']);
      const config = JSON.stringify({
        architecture: 'amd64',
        os: '<script>alert(1)</script>',
        config: { Cmd: ['"><img src=x>'] },
      });
      await registry.pushBlob('root/evil', config, basic('root', 'secret'));
      const manifest = JSON.stringify({
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        config: { mediaType: '<b>', digest: sha256(config), size: config.length },
        layers: [],
        annotations: { '<i>': '&<u>' },
      });
      const pushed = await registry.ask('PUT', '/v2/root/evil/manifests/v1', {
        body: manifest,
        headers: { ...basic('root', 'secret'), 'content-type': 'application/vnd.oci.image.manifest.v1+json' },
      });
      assert.equal(pushed.status, 201, pushed.text);
      const page = await registry.ask('GET', '/ui/r/root/evil:v1', { headers: basic('root', 'secret') });
      assert.equal(page.status, 200);
      assert.match(page.text, /&lt;script&gt;alert\(1\)/);
      assert.doesNotMatch(page.text, /<script|<img|<i>|<u>|<b>/);
    });

    test('metrics are for administrators', async () => {
      assert.equal((await registry.ask('GET', '/metrics')).status, 401);
      assert.equal((await registry.ask('GET', '/metrics', { headers: basic('bob', 'builder') })).status, 403);
      const metrics = await registry.ask('GET', '/metrics', { headers: basic('root', 'secret') });
      assert.match(metrics.text, /^gantry_registry_requests_total\{route="base",method="GET",code="401"\} \d+$/m);
      assert.match(metrics.text, /^gantry_registry_blob_bytes \d+$/m);
    });

    test('a flood of guesses does not keep out who was in', async () => {
      assert.equal((await registry.ask('GET', '/v2/', { headers: basic('alice', 'wonder') })).status, 200);
      const guesses = Array.from({ length: 30 }, (_, count) =>
        registry.ask('GET', '/v2/', { headers: basic('root', `guess ${count}`) }),
      );
      const known = await registry.ask('GET', '/v2/', { headers: basic('alice', 'wonder') });
      assert.equal(known.status, 200);
      const codes = new Set((await Promise.all(guesses)).map(({ code }) => code));
      assert.deepEqual([...codes], ['UNAUTHORIZED']);
    });

    test('a changed password file is taken over; a broken one is not', async () => {
      await run('htpasswd', ['-bB', users, 'carol', 'carols']);
      assert.equal((await registry.ask('GET', '/v2/', { headers: basic('carol', 'carols') })).status, 200);
      await run('htpasswd', ['-bm', users, 'dave', 'md5']);
      assert.equal((await registry.ask('GET', '/v2/', { headers: basic('dave', 'md5') })).status, 401);
      assert.equal((await registry.ask('GET', '/v2/', { headers: basic('carol', 'carols') })).status, 200);
      await run('htpasswd', ['-D', users, 'dave']);
      assert.match(registry.log, /is not hashed with bcrypt; make it with htpasswd -B/);
      assert.doesNotMatch(registry.log, /carols|wonder|secret/);
    });
  });

  describe('with tokens of its own', () => {
    let registry: TestRegistry;
    before(async () => {
      registry = await startRegistry('--auth', 'token', '--htpasswd', users, '--rights', rights);
    });
    after(() => registry?.[Symbol.asyncDispose]());

    const token = async (query: string, headers: Record<string, string> = {}): Promise<Record<string, string>> => {
      const answer = await registry.ask('GET', `/token?service=gantry-registry&${query}`, { headers });
      assert.equal(answer.status, 200, answer.text);
      return JSON.parse(answer.text);
    };

    test('the challenge names the token endpoint and the scope', async () => {
      const base = await registry.ask('GET', '/v2/');
      assert.equal(
        base.headers['www-authenticate'],
        `Bearer realm="http://${registry.host}/token",service="gantry-registry"`,
      );
      const push = await registry.ask('POST', '/v2/alice/app/blobs/uploads/', { body: '' });
      assert.match(String(push.headers['www-authenticate']), /scope="repository:alice\/app:pull,push"$/);
    });

    test('skopeo logs in, pushes and pulls; a stranger pulls only what is public', async () => {
      const login = await skopeo('login', '--tls-verify=false', '-u', 'alice', '-p', 'wonder', registry.host);
      assert.equal(login.code, 0, login.stderr);
      for (const name of ['alice/app', 'public/app']) {
        const pushed = await skopeo(
          'copy',
          '--dest-tls-verify=false',
          `oci:${layout}:v1`,
          `docker://${registry.host}/${name}:v1`,
        );
        assert.equal(pushed.code, 0, pushed.stderr);
      }
      assert.notEqual(
        (await skopeo('copy', '--dest-tls-verify=false', `oci:${layout}:v1`, `docker://${registry.host}/bob/app:v1`))
          .code,
        0,
      );
      assert.equal((await skopeo('inspect', '--tls-verify=false', `docker://${registry.host}/alice/app:v1`)).code, 0);
      assert.equal(
        (await skopeo('inspect', '--tls-verify=false', '--no-creds', `docker://${registry.host}/public/app:v1`)).code,
        0,
      );
      assert.notEqual(
        (await skopeo('inspect', '--tls-verify=false', '--no-creds', `docker://${registry.host}/alice/app:v1`)).code,
        0,
      );
      assert.notEqual(
        (await skopeo('login', '--tls-verify=false', '-u', 'alice', '-p', 'wrong', registry.host)).code,
        0,
      );
    });

    test('a token gives what was asked and allowed, no more', async () => {
      const pull = await token('scope=repository:alice/app:pull', basic('alice', 'wonder'));
      const begin = (headers: Record<string, string>): Promise<Answer> =>
        registry.ask('POST', '/v2/alice/app/blobs/uploads/', { body: '', headers });
      const refused = await begin(bearer(pull['token'] ?? ''));
      assert.deepEqual([refused.status, refused.code], [401, 'UNAUTHORIZED']);
      assert.match(String(refused.headers['www-authenticate']), /error="insufficient_scope"$/);
      const push = await token(
        'scope=repository:alice/app:pull,push&scope=repository:bob/app:push',
        basic('alice', 'wonder'),
      );
      assert.equal((await begin(bearer(push['access_token'] ?? ''))).status, 202);
      assert.equal(
        (await registry.ask('POST', '/v2/bob/app/blobs/uploads/', { body: '', headers: bearer(push['token'] ?? '') }))
          .status,
        401,
      );
      const forged = `${(push['token'] ?? '').slice(0, -8)}AAAAAAAA`;
      assert.equal((await begin(bearer(forged))).status, 401);
      const [, body = ''] = (push['token'] ?? '').split('.');
      const none = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${body}.`;
      assert.equal((await begin(bearer(none))).status, 401);
      const keyed = `${Buffer.from('{"alg":"HS256"}').toString('base64url')}.${body}`;
      assert.equal(
        (await begin(bearer(`${keyed}.${createHmac('sha256', '').update(keyed).digest('base64url')}`))).status,
        401,
      );
      assert.equal((await registry.ask('GET', '/token?service=other')).code, 'DENIED');
      assert.equal((await registry.ask('GET', '/token', { headers: basic('alice', 'wrong') })).status, 401);
    });

    test('OAuth: a password gives a refresh token, which ends with the password', async () => {
      await run('htpasswd', ['-bB', users, 'erin', 'first']);
      const post = (form: Record<string, string>): Promise<Answer> =>
        registry.ask('POST', '/token', {
          body: new URLSearchParams(form).toString(),
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
        });
      const base = { service: 'gantry-registry', client_id: 'test', scope: 'repository:erin/app:pull,push' };
      const granted = await post({
        ...base,
        grant_type: 'password',
        username: 'erin',
        password: 'first',
        access_type: 'offline',
      });
      assert.equal(granted.status, 200);
      const { refresh_token: refresh } = JSON.parse(granted.text);
      const again = await post({ ...base, grant_type: 'refresh_token', refresh_token: refresh });
      const headers = bearer(JSON.parse(again.text).access_token);
      assert.equal((await registry.ask('POST', '/v2/erin/app/blobs/uploads/', { body: '', headers })).status, 202);
      await run('htpasswd', ['-bB', users, 'erin', 'second']);
      assert.equal((await post({ ...base, grant_type: 'refresh_token', refresh_token: refresh })).status, 401);
      assert.equal((await post({ ...base, grant_type: 'refresh_token', refresh_token: 'guess' })).status, 401);
      assert.equal((await post({ ...base, grant_type: 'client_credentials' })).code, 'UNSUPPORTED');
    });

    test('the catalogue with its own scope', async () => {
      const other = bearer((await token('scope=repository:public/app:pull', basic('bob', 'builder')))['token'] ?? '');
      const refused = await registry.ask('GET', '/v2/_catalog', { headers: other });
      assert.equal(refused.status, 401);
      assert.match(String(refused.headers['www-authenticate']), /scope="registry:catalog:\*"/);
      const headers = bearer((await token('scope=registry:catalog:*', basic('bob', 'builder')))['token'] ?? '');
      assert.deepEqual(JSON.parse((await registry.ask('GET', '/v2/_catalog', { headers })).text).repositories, [
        'public/app',
      ]);
    });
  });

  test('tokens of another issuer are taken by its public key, and only what they grant', async () => {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const keys = join(directory, 'keys.json');
    writeFileSync(keys, JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one' }] }));
    await using registry = await startRegistry(
      '--auth',
      'external',
      '--token-realm',
      'https://auth.example/token',
      '--token-issuer',
      'auth.example',
      '--token-service',
      'images',
      '--token-keys',
      keys,
    );
    const make = (claims: object): string => {
      const now = Math.floor(Date.now() / 1000);
      const all = {
        iss: 'auth.example',
        aud: 'images',
        sub: 'zoe',
        exp: now + 60,
        nbf: now - 5,
        access: [{ type: 'repository', name: 'zoe/app', actions: ['push'] }],
        ...claims,
      };
      const text = [{ alg: 'RS256', kid: 'one' }, all]
        .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
        .join('.');
      return `${text}.${sign('sha256', Buffer.from(text), privateKey).toString('base64url')}`;
    };
    const begin = async (repository: string, claims: object): Promise<number> =>
      (await registry.ask('POST', `/v2/${repository}/blobs/uploads/`, { body: '', headers: bearer(make(claims)) }))
        .status;
    assert.equal(await begin('zoe/app', {}), 202);
    assert.equal(await begin('other/app', {}), 401);
    assert.equal(await begin('zoe/app', { iss: 'else' }), 401);
    assert.equal(await begin('zoe/app', { aud: 'else' }), 401);
    assert.equal(await begin('zoe/app', { exp: 1 }), 401);
    assert.match(
      String((await registry.ask('GET', '/v2/')).headers['www-authenticate']),
      /^Bearer realm="https:\/\/auth.example\/token",service="images"$/,
    );
  });

  test('TLS of version 1.2 or later, with a certificate that SIGHUP renews', async () => {
    const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
    const make = async (name: string): Promise<void> => {
      const made = await run('openssl', [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:P-256',
        '-nodes',
        '-days',
        '2',
        '-subj',
        `/CN=${name}`,
        '-keyout',
        key,
        '-out',
        cert,
      ]);
      assert.equal(made.code, 0, made.stderr);
    };
    await make('first');
    await using registry = await startRegistry('--tls-cert', cert, '--tls-key', key);
    assert.equal((await registry.ask('GET', '/v2/')).status, 200);
    const handshake = (flag: string): ReturnType<typeof run> =>
      run('openssl', ['s_client', flag, '-connect', registry.host], { input: '' });
    assert.match((await handshake('-tls1_2')).stdout, /subject=CN = first/);
    assert.notEqual((await handshake('-tls1_1')).code, 0);
    await make('second');
    registry.signal('SIGHUP');
    await eventually(async () => /subject=CN = second/.test((await handshake('-tls1_3')).stdout), {
      what: 'the new certificate',
    });
  });
});
