import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { GantryError } from '#types/errors.ts';
import { readHostCertificates } from './certificates.ts';
import { parseChallenges } from './challenge.ts';
import { isInsecure, type RegistryOptions, resolveEndpoints } from './endpoints.ts';
import { answerError } from './errors.ts';
import { networkText } from './network-errors.ts';
import { proxyFor } from './proxies.ts';
import { splitSearchTerm } from './search.ts';
import { retryAfterMs } from './session.ts';

const OPTIONS: RegistryOptions = {
  mirrors: [],
  insecure: [],
  hosts: {},
  certificatesDirectory: '/nonexistent',
  proxies: { http: '', https: '', no: '' },
};

test('challenges are read with quotes, commas and several schemes', () => {
  assert.deepEqual(
    parseChallenges(
      'Bearer realm="https://a/token?x=1,2",service="reg",scope="repository:x:pull,push", Basic realm="b\\"c"',
    ),
    [
      {
        scheme: 'bearer',
        parameters: { realm: 'https://a/token?x=1,2', service: 'reg', scope: 'repository:x:pull,push' },
      },
      { scheme: 'basic', parameters: { realm: 'b"c' } },
    ],
  );
  assert.deepEqual(parseChallenges(''), []);
  assert.deepEqual(parseChallenges('=,"'), []);
  assert.deepEqual(parseChallenges('Negotiate'), [{ scheme: 'negotiate', parameters: {} }]);
});

test('loopback and listed hosts and ranges are insecure', async () => {
  for (const host of ['127.0.0.1:5000', 'localhost:5000', '[::1]:5000', '127.3.2.1']) {
    assert.equal(await isInsecure(host, []), true, host);
  }
  assert.equal(await isInsecure('10.1.2.3:5000', []), false);
  assert.equal(await isInsecure('10.1.2.3:5000', ['10.0.0.0/8']), true);
  assert.equal(await isInsecure('Reg.example.invalid:5000', ['reg.example.invalid:5000']), true);
  assert.equal(await isInsecure('reg.example.invalid', ['reg.example.invalid:5000']), false);
  assert.equal(await isInsecure('[fd00::1]', ['fd00::/8']), true);
});

test('mirrors come first, then HTTPS, and plain HTTP only where it may be', async () => {
  const urls = async (domain: string, options: Partial<RegistryOptions>, withMirrors = true): Promise<string[]> =>
    (await resolveEndpoints(domain, { ...OPTIONS, ...options }, withMirrors)).map(({ url }) => url.href);
  assert.deepEqual(await urls('docker.io', {}), ['https://registry-1.docker.io/']);
  assert.deepEqual(await urls('docker.io', { mirrors: ['https://m.example/'] }), [
    'https://m.example/',
    'https://registry-1.docker.io/',
  ]);
  assert.deepEqual(await urls('docker.io', { mirrors: ['https://m.example/'] }, false), [
    'https://registry-1.docker.io/',
  ]);
  assert.deepEqual(await urls('10.0.0.1', { mirrors: ['https://m.example/'] }), ['https://10.0.0.1/']);
  assert.deepEqual(await urls('127.0.0.1:5', {}), ['https://127.0.0.1:5/', 'http://127.0.0.1:5/']);
  const mirror = { url: 'http://cache.invalid/ghcr', prefix: 'p', credentials: { username: 'u' } };
  const hosts = { '127.0.0.1:5': { mirrors: [mirror], verify: true } };
  const [first, second, ...rest] = await resolveEndpoints('127.0.0.1:5', { ...OPTIONS, hosts }, true);
  assert.deepEqual(rest, []);
  assert.deepEqual(
    [first?.url.href, first?.credentials, first?.namespace, first?.prefix],
    ['http://cache.invalid/ghcr', { username: 'u' }, '127.0.0.1:5', 'p'],
  );
  assert.deepEqual([second?.verifyTls, second?.credentials], [true, undefined]);
});

test('proxies follow Go’s rules', () => {
  const settings = {
    http: 'proxy:3128',
    https: 'http://secure:1',
    no: '.internal, 10.0.0.0/8,example.com:8443,plain.org',
  };
  const via = (url: string): string | undefined => proxyFor(new URL(url), settings);
  assert.equal(via('http://a.org/'), 'http://proxy:3128');
  assert.equal(via('https://a.org/'), 'http://secure:1');
  for (const url of [
    'http://localhost:5/',
    'http://127.9.9.9/',
    'https://x.internal/',
    'http://10.2.3.4/',
    'https://plain.org/',
    'https://sub.plain.org/',
    'https://example.com:8443/',
    'http://[::1]/',
  ]) {
    assert.equal(via(url), undefined, url);
  }
  for (const url of ['https://internal/', 'https://example.com/', 'http://11.0.0.1/', 'https://notplain.org/']) {
    assert.notEqual(via(url), undefined, url);
  }
  assert.equal(proxyFor(new URL('https://a.org'), { ...settings, no: '*' }), undefined);
});

test('refusals are worded as docker words them', () => {
  const text = (status: number, body: string, headers: { contentType?: string; challenge?: string } = {}): string =>
    answerError({
      status,
      body,
      contentType: headers.contentType ?? 'application/json',
      challenge: headers.challenge ?? '',
    }).message;
  const error = (code: string, message: string, detail?: unknown): string =>
    JSON.stringify({ errors: [{ code, message, ...(detail === undefined ? {} : { detail }) }] });
  assert.equal(text(404, error('MANIFEST_UNKNOWN', 'manifest unknown', {})), 'manifest unknown: manifest unknown');
  assert.equal(text(404, error('MANIFEST_UNKNOWN', 'manifest unknown')), 'manifest unknown');
  assert.equal(text(429, error('TOOMANYREQUESTS', 'You are too fast')), 'toomanyrequests: You are too fast');
  assert.equal(text(403, 'go away', { contentType: 'text/plain' }), 'denied: go away');
  assert.equal(text(400, error('MADE_UP', 'what')), 'unknown: what');
  assert.equal(text(500, 'oops'), 'received unexpected HTTP status: 500 Internal Server Error');
  assert.equal(
    text(404, '<html>'),
    `error parsing HTTP 404 response body: invalid character '<' looking for beginning of value: "<html>"`,
  );
  assert.equal(text(401, ''), 'unauthorized: authentication required');
  assert.equal(text(400, '{"details":"too old"}'), 'unknown: too old');
  assert.match(
    text(403, error('DENIED', 'no', {}), { challenge: 'Bearer realm="x",error="insufficient_scope"' }),
    /^errors:\ndenied: requested access to the resource is denied\ndenied: no\n$/,
  );
  const kind = answerError({
    status: 429,
    body: error('TOOMANYREQUESTS', 'x'),
    contentType: 'application/json',
    challenge: '',
  });
  assert.ok(kind instanceof GantryError && kind.kind === 'tooManyRequests');
});

test('failures of the network are worded as Go words them', () => {
  const url = new URL('https://10.0.0.1:5000/v2/');
  const text = (code: string, more: object = {}): string =>
    networkText(Object.assign(new Error(code), { code, ...more }), url);
  assert.equal(
    text('ECONNREFUSED', { syscall: 'connect', address: '10.0.0.1', port: 5000 }),
    'dial tcp 10.0.0.1:5000: connect: connection refused',
  );
  assert.equal(text('ECONNRESET', { syscall: 'read' }), 'read tcp 10.0.0.1:5000: read: connection reset by peer');
  assert.equal(text('UND_ERR_CONNECT_TIMEOUT'), 'dial tcp 10.0.0.1:5000: i/o timeout');
  assert.match(text('ENOTFOUND'), /^dial tcp: lookup 10\.0\.0\.1( on .*)?: no such host$/);
  assert.match(text('DEPTH_ZERO_SELF_SIGNED_CERT'), /x509: certificate signed by unknown authority$/);
  assert.equal(text('ERR_SSL_WRONG_VERSION_NUMBER'), 'http: server gave HTTP response to HTTPS client');
  assert.match(
    text('ERR_TLS_CERT_ALTNAME_INVALID', { cert: { subjectaltname: 'DNS:a, DNS:b' } }),
    /certificate is valid for a, b, not 10\.0\.0\.1$/,
  );
});

test('Retry-After is seconds or a date', () => {
  assert.equal(retryAfterMs('3'), 3000);
  assert.equal(retryAfterMs('soon'), undefined);
  const date = retryAfterMs(new Date(Date.now() + 60_000).toUTCString()) ?? 0;
  assert.ok(date > 50_000 && date <= 60_000);
  assert.equal(retryAfterMs(new Date(0).toUTCString()), 0);
});

test('a search term names its registry by docker’s rule', () => {
  assert.deepEqual(splitSearchTerm('me/app'), { index: 'docker.io', name: 'me/app' });
  assert.deepEqual(splitSearchTerm('localhost/app'), { index: 'localhost', name: 'app' });
  assert.deepEqual(splitSearchTerm('r.example:5/a/b'), { index: 'r.example:5', name: 'a/b' });
  assert.throws(() => splitSearchTerm('https://x/y'), { kind: 'invalid' });
});

test('certs.d gives CAs beside the system’s and complete pairs only', async () => {
  const root = mkdtempSync(join(tmpdir(), 'gantry-certs-'));
  try {
    const directory = join(root, 'a:5');
    await mkdir(directory);
    writeFileSync(join(directory, 'ca.crt'), 'CA');
    writeFileSync(join(directory, 'c.cert'), 'C');
    writeFileSync(join(directory, 'c.key'), 'K');
    const read = await readHostCertificates(root, 'a:5');
    assert.equal(read.ca?.at(-1), 'CA');
    assert.ok((read.ca?.length ?? 0) > 1);
    assert.deepEqual(read.certificates, [{ cert: 'C', key: 'K' }]);
    assert.deepEqual((await readHostCertificates(root, 'b')).certificates, []);
    rmSync(join(directory, 'c.cert'));
    await assert.rejects(readHostCertificates(root, 'a:5'), /missing client certificate c\.cert for key c\.key/);
  } finally {
    rmSync(root, { recursive: true });
  }
});
