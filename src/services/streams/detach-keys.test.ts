import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DEFAULT_DETACH_KEYS, DetachScanner, parseDetachKeys } from './detach-keys.ts';

describe('detach keys', () => {
  it('reads single characters, control keys and DEL', () => {
    assert.deepEqual([...parseDetachKeys('ctrl-p,ctrl-q')], [16, 17]);
    assert.deepEqual([...parseDetachKeys('a,ctrl-@,DEL,ctrl-_')], [97, 0, 127, 31]);
    assert.deepEqual(parseDetachKeys(''), DEFAULT_DETACH_KEYS);
  });

  it('refuses what is no key, naming the whole text', () => {
    for (const text of ['ctrl-A', 'ctrl-', 'ctrl-pp', 'abc', 'a,,b', 'é']) {
      assert.throws(() => parseDetachKeys(text), {
        kind: 'invalid',
        message: `Invalid detach keys (${text}) provided`,
      });
    }
  });

  it('finds the keys across chunks and drops what follows', () => {
    const scanner = new DetachScanner(Buffer.from([16, 17]));
    assert.deepEqual(scanner.push(Buffer.from('ab\x10')), { data: Buffer.from('ab'), detached: false });
    assert.deepEqual(scanner.push(Buffer.from('\x11rest')), { data: Buffer.from(''), detached: true });
  });

  it('gives a partial match on when it breaks', () => {
    const scanner = new DetachScanner(Buffer.from('xyz'));
    assert.equal(scanner.push(Buffer.from('ax')).data.toString(), 'a');
    assert.equal(scanner.push(Buffer.from('y')).data.toString(), '');
    assert.equal(scanner.push(Buffer.from('q')).data.toString(), 'xyq');
    assert.equal(scanner.push(Buffer.from('xyqxyz!')).data.toString(), 'xyq');
  });

  it('passes every byte when there are no keys', () => {
    const scanner = new DetachScanner(Buffer.alloc(0));
    assert.equal(scanner.push(Buffer.from('\x10\x11')).data.toString(), '\x10\x11');
  });
});
