import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { registryHosts } from './registry-hosts.ts';

test('mirrors are read from strings and objects, passwords from files', () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-options-'));
  try {
    const file = join(directory, 'password');
    writeFileSync(file, 'secret\n');
    const mirror = { url: 'https://h.example:8443/x', prefix: 'proxy/ghcr', username: 'u', 'password-file': file };
    assert.deepEqual(
      registryHosts({ 'ghcr.io': { mirrors: ['http://m.example', mirror] }, '[::1]:5': { verify: true } }),
      {
        'ghcr.io': {
          mirrors: [
            { url: 'http://m.example', prefix: '', credentials: {} },
            { url: mirror.url, prefix: mirror.prefix, credentials: { username: 'u', password: 'secret' } },
          ],
          verify: false,
        },
        '[::1]:5': { mirrors: [], verify: true },
      },
    );
    assert.deepEqual(registryHosts(undefined), {});
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('what is wrong is named, and no secret with it', () => {
  const fails = (value: unknown, pattern: RegExp): void => {
    assert.throws(
      () => registryHosts(value),
      (error: Error) => pattern.test(error.message) && !/hidden/.test(error.message),
    );
  };
  fails([], /must be an object/);
  fails({ 'https://ghcr.io': {} }, /"https:\/\/ghcr\.io" is no registry host/);
  fails({ a: { mirror: [] } }, /a has unknown keys: mirror/);
  fails({ a: { mirrors: [{ url: 'ftp://x', password: 'hidden' }] } }, /unsupported scheme "ftp"/);
  fails({ a: { mirrors: ['https://u:hidden@x'] } }, /username\/password not allowed/);
  fails({ a: { mirrors: [{ url: 'https://x', prefix: 'UP' }] } }, /prefix "UP"/);
  fails(
    { a: { mirrors: [{ url: 'https://x', username: 'u', 'password-file': '/nonexistent/x' }] } },
    /password-file of a mirror of a: ENOENT/,
  );
  fails({ a: { mirrors: [{ url: 'https://x', username: 'u', password: 'hidden', 'password-file': '/x' }] } }, /both/);
  fails({ a: { verify: 'yes' } }, /verify of a/);
});
