import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { hashSync } from 'bcryptjs';
import { parseAuthorization } from './access.ts';
import { PasswordChecker } from './password-checker.ts';
import { Rights } from './rights.ts';
import { grants, parseScopes } from './scopes.ts';
import { parseHtpasswd } from './users.ts';
import { type Claims, TokenSigner, TokenVerifier } from './web-tokens.ts';

const HASH = `$2y$05$${'a'.repeat(53)}`;

describe('htpasswd', () => {
  test('bcrypt lines are taken, comments and blank lines left out', () => {
    assert.deepEqual([...parseHtpasswd(`# users\n\nalice:${HASH}\r\nbob:${HASH}\n`).keys()], ['alice', 'bob']);
  });

  for (const [what, line] of [
    ['MD5', 'bob:$apr1$x$y'],
    ['SHA', 'bob:{SHA}abc='],
    ['crypt', 'bob:rl.3OYhcVQVgI'],
    ['a clear text', 'bob:secret'],
    ['a cost that takes seconds', `bob:$2y$20$${'a'.repeat(53)}`],
    ['a line without a colon', 'bob'],
  ] as const) {
    test(`${what} is refused by its line, and never shown`, () => {
      assert.throws(
        () => parseHtpasswd(`alice:${HASH}\n${line}`),
        (error: Error) => /^htpasswd line 2: /.test(error.message) && !error.message.includes('secret'),
      );
    });
  }
});

test('passwords: right, wrong, remembered, and refused when too many wait', async () => {
  await using checker = new PasswordChecker();
  const hash = hashSync('right', 4);
  assert.equal(await checker.check('right', hash), true);
  const checks = await Promise.allSettled(
    Array.from({ length: 100 }, (_, count) => checker.check(`wrong ${count}`, hash)),
  );
  const refused = checks.filter((outcome) => outcome.status === 'rejected');
  assert.equal(refused.length, 36);
  assert.ok(refused.every(({ reason }) => /too many logins at once/.test(reason.message)));
  assert.ok(checks.every((outcome) => outcome.status === 'rejected' || !outcome.value));
  // One that was right needs no place in the queue.
  const waiting = Array.from({ length: 64 }, (_, count) => checker.check(`more ${count}`, hash));
  assert.equal(await checker.check('right', hash), true);
  await Promise.all(waiting);
});

describe('rights', () => {
  const rights = Rights.parse({
    groups: { dev: ['alice', 'bob'] },
    administrators: ['root'],
    rules: [
      { repositories: 'public/**', to: ['everyone'], actions: ['pull'] },
      { repositories: 'dev/*', to: ['@dev'], actions: ['pull', 'push'] },
      { repositories: 'home/${user}/**', to: ['users'], actions: ['*'] },
    ],
  });

  for (const [user, repository, action, expected] of [
    [undefined, 'public/a', 'pull', true],
    [undefined, 'public/a', 'push', false],
    [undefined, 'home/undefined/a', 'pull', false],
    ['alice', 'dev/a', 'push', true],
    ['alice', 'dev/a', 'delete', false],
    ['carol', 'dev/a', 'pull', false],
    ['carol', 'home/carol/a', 'delete', true],
    ['carol', 'home/alice/a', 'pull', false],
    ['*', 'home/alice/a', 'pull', false],
    ['**', 'home/alice/a', 'pull', false],
    ['root', 'anything', 'delete', true],
  ] as const) {
    test(`${user ?? 'nobody'} ${expected ? 'may' : 'may not'} ${action} ${repository}`, () => {
      assert.equal(rights.allows(user, repository, action), expected);
    });
  }

  for (const [value, text] of [
    [[], /the file is not an object/],
    [{ rule: [] }, /unknown field "rule"/],
    [{ rules: [{ repositories: 'a', to: ['@none'], actions: ['pull'] }] }, /there is no group "none"/],
    [{ rules: [{ repositories: 'a', to: ['x'], actions: ['read'] }] }, /"read" is none of pull, push, delete/],
    [{ rules: [{ repositories: '', to: ['x'], actions: ['pull'] }] }, /is not a pattern/],
    [{ administrators: 'root' }, /administrators is not a list of names/],
  ] as const) {
    test(`a file that is wrong is refused: ${text.source}`, () => {
      assert.throws(() => Rights.parse(value), text);
    });
  }
});

test('scopes: names with ports and colons, several in one, classes', () => {
  assert.deepEqual(
    parseScopes(['repository:host:5000/a:pull,push registry:catalog:*', 'nonsense', 'repository(plugin):b:pull']),
    [
      { type: 'repository', name: 'host:5000/a', actions: ['pull', 'push'] },
      { type: 'registry', name: 'catalog', actions: ['*'] },
      { type: 'repository', name: 'b', actions: ['pull'] },
    ],
  );
  assert.equal(grants(parseScopes(['registry:catalog:*']), 'registry', 'catalog', '*'), true);
  assert.equal(grants(parseScopes(['repository:a:pull']), 'repository', 'a', 'push'), false);
  assert.throws(() => parseScopes([Array(101).fill('repository:a:pull').join(' ')]), /too many scopes/);
});

test('authorization headers', () => {
  assert.deepEqual(parseAuthorization(undefined), { kind: 'none' });
  const basic = `Basic ${Buffer.from('user:pass:word').toString('base64')}`;
  assert.deepEqual(parseAuthorization(basic), { kind: 'basic', user: 'user', password: 'pass:word' });
  assert.deepEqual(parseAuthorization('bearer abc'), { kind: 'bearer', token: 'abc' });
  for (const header of ['Basic', 'Basic @@@', `Basic ${Buffer.from(':x').toString('base64')}`, 'Digest x']) {
    assert.throws(() => parseAuthorization(header), /invalid authorization credential/);
  }
});

describe('tokens', () => {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-tokens-'));
  after(() => rmSync(directory, { recursive: true, force: true }));
  const expected = { issuer: 'us', service: 'us', nowMs: 1_000_000_000 };
  const claims: Claims = {
    iss: 'us',
    sub: 'alice',
    aud: ['them', 'us'],
    exp: 1_000_100,
    nbf: 999_990,
    iat: 1_000_000,
    jti: 'x',
    access: [],
  };

  test('the key is made once and readable by root only', () => {
    const file = join(directory, 'key.pem');
    const token = new TokenSigner(file).sign(claims);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.equal(new TokenSigner(file).verifier.verify(token, expected)?.sub, 'alice');
  });

  test('another key, time, issuer, service or shape is refused', () => {
    const signer = new TokenSigner(join(directory, 'other.pem'));
    const verifier = signer.verifier;
    const verify = (changed: object): Claims | undefined =>
      verifier.verify(signer.sign({ ...claims, ...changed } as Claims), expected);
    assert.ok(verify({}));
    for (const changed of [
      { iss: 'x' },
      { aud: 'x' },
      { exp: 999_000 },
      { exp: 'never' },
      { nbf: 2_000_000 },
      { access: 'all' },
      { access: [{}] },
    ]) {
      assert.equal(verify(changed), undefined, JSON.stringify(changed));
    }
    assert.equal(
      new TokenSigner(join(directory, 'third.pem')).verifier.verify(signer.sign(claims), expected),
      undefined,
    );
    for (const text of ['', 'a.b', 'a.b.c', 'a.b.c.d', '..', 'x'.repeat(100_000)])
      assert.equal(verifier.verify(text, expected), undefined);
  });

  test('weak keys are refused', () => {
    const file = join(directory, 'weak.pem');
    writeFileSync(
      file,
      generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ type: 'spki', format: 'pem' }),
    );
    assert.throws(() => TokenVerifier.read(file), /must be EC P-256 or P-384, RSA of 2048 bits or more, or Ed25519/);
    writeFileSync(file, '{"keys":[]}');
    assert.throws(() => TokenVerifier.read(file), /there are no keys in it/);
    writeFileSync(file, generateKeyPairSync('ed25519').publicKey.export({ type: 'spki', format: 'pem' }));
    assert.ok(TokenVerifier.read(file));
  });
});
