import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { parseWords, type RegistrySettings, readSettings } from './settings.ts';

describe('settings of registry serve', () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-settings-'));
  after(() => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, 'config.json');
  const secret = join(directory, 'secret');

  const read = (words: readonly string[], config?: unknown): RegistrySettings => {
    if (config !== undefined) writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config));
    return readSettings(parseWords('serve', config === undefined ? words : [...words, '--config', file]));
  };

  test('defaults: the loopback, no users, an hour of grace', () => {
    const { host, port, auth, gc, proxy, totalQuotaBytes, isReadOnly, maxBlobBytes } = read([]);
    assert.deepEqual(
      [host, port, auth, isReadOnly, totalQuotaBytes, proxy],
      ['127.0.0.1', 5000, 'none', false, undefined, undefined],
    );
    assert.deepEqual(gc, { intervalMs: 3_600_000, graceMs: 3_600_000, untaggedAfterMs: undefined });
    assert.equal(maxBlobBytes, 100 * 1024 ** 3);
  });

  test('the file has the names of the flags, and flags win', () => {
    const config = { listen: ':6000', gcGrace: '2m', readOnly: true, quota: '1g', maxBlobSize: 1000 };
    const settings = read(['--gc-grace', '3m'], config);
    assert.deepEqual([settings.host, settings.port, settings.gc.graceMs], ['::', 6000, 180_000]);
    assert.deepEqual([settings.isReadOnly, settings.totalQuotaBytes, settings.maxBlobBytes], [true, 1024 ** 3, 1000]);
    assert.equal(read(['--read-only=false'], config).isReadOnly, false);
  });

  test('quotas and webhooks', () => {
    writeFileSync(secret, 'word\nmore');
    const settings = read([], {
      quotas: [{ repositories: 'a/**', limit: '2m', scope: 'together' }],
      webhooks: [{ url: 'https://hooks.example/x', secretFile: secret, ignoreActions: ['pull'] }],
    });
    assert.deepEqual(settings.quotas, [{ repositories: 'a/**', limitBytes: 2 * 1024 ** 2, scope: 'together' }]);
    const [webhook] = settings.webhooks;
    assert.deepEqual([webhook?.name, webhook?.secret, webhook?.timeoutMs], ['hooks.example', 'word', 5000]);
  });

  for (const [words, text] of [
    [['--tls-cert', 'x'], /--tls-cert and --tls-key go together/],
    [['--rights', 'x'], /--rights is for --auth basic and token/],
    [['--listen', 'localhost'], /--listen localhost: want host:port/],
    [['--listen', '[::1]:70000'], /want host:port/],
    [['--auth', 'basic'], /--auth basic needs --htpasswd/],
    [['--auth', 'ldap'], /--auth ldap: want none, basic, token or external/],
    [['--auth', 'external', '--token-realm', 'https://x'], /--auth external needs --token-issuer/],
    [['--htpasswd', 'x', '--realm', 'a"b'], /cannot be sent in a challenge/],
    [['--external-url', 'https://x/path'], /is not the http or https URL of a host/],
    [['--proxy-remote-url', 'ftp://x'], /is not the http or https URL of a host/],
    [
      ['--proxy-remote-url', 'https://x', '--proxy-username', 'u'],
      /--proxy-username and --proxy-password-file go together/,
    ],
    [['--gc-grace', '-1s'], /--gc-grace is negative/],
    [['--log-level', 'loud'], /--log-level loud: want debug, info, warn or error/],
  ] as const) {
    test(`refused: ${words.join(' ')}`, () => {
      assert.throws(() => read(words), text);
    });
  }

  for (const [config, text] of [
    ['{', /configuration .*: /],
    [[], /it is not an object/],
    [{ nonsense: 1 }, /there is no option "nonsense"/],
    [{ config: 'x' }, /there is no option "config"/],
    [{ gcGrace: 'soon' }, /gcGrace: time: invalid duration/],
    [{ readOnly: 'perhaps' }, /readOnly: strconv\.ParseBool/],
    [{ listen: {} }, /listen is not a value/],
    [{ quotas: {} }, /quotas is not a list/],
    [{ quotas: [{ repositories: 'x' }] }, /quotas\[0\]: invalid size/],
    [{ quotas: [{ repositories: 'x', limit: '1g', scope: 'some' }] }, /neither "each" nor "together"/],
    [{ webhooks: [{ url: 'ftp://x' }] }, /webhooks\[0\]\.url is no http or https URL/],
    [{ webhooks: [{ url: 'http://x', secretFile: '/nonexistent/secret' }] }, /secret file: /],
    [{ webhooks: [{ url: 'http://x', timeoutMs: 1e9 }] }, /timeoutMs is not between/],
    [{ webhooks: [{ url: 'http://x', backoff: 1 }] }, /unknown field "backoff"/],
  ] as const) {
    test(`refused in the file: ${JSON.stringify(config)}`, () => {
      assert.throws(() => read([], config), text);
    });
  }

  test('an argument or an unknown flag is refused in the words of the command line', () => {
    assert.throws(() => read(['--nope']), /unknown flag: --nope/);
  });
});
