import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errnoName, errnoText, KernelError } from './errno.ts';
import { type Foreign, koffiForeign, nodeForeign, openLibrary } from './ffi.ts';

const implementations: [string, () => Foreign | undefined][] = [
  ['node:ffi', nodeForeign],
  ['koffi', koffiForeign],
];

for (const [name, load] of implementations) {
  test(`${name} calls libc, keeps errno and returns 64-bit results as bigints`, (context) => {
    const implementation = load();
    if (implementation === undefined) return context.skip('this Node has no node:ffi');
    const { calls, errno } = openLibrary(
      ['libmissing.so.0', 'libc.so.6'],
      {
        umount2: { returns: 'i32', arguments: ['string', 'i32'] },
        getxattr: { returns: 'i64', arguments: ['string', 'string', 'pointer', 'u64'] },
        strlen: { returns: 'u64', arguments: ['string'] },
        strlenOfBytes: { symbol: 'strlen', returns: 'u64', arguments: ['pointer'] },
        getenv: { returns: 'pointer', arguments: ['string'] },
        strerror: { returns: 'string', arguments: ['i32'] },
      },
      implementation,
    );
    assert.equal(calls.umount2('/does/not/exist', 0), -1);
    assert.equal(errnoName(errno()), 'ENOENT');
    assert.equal(calls.getxattr('/', 'user.absent', null, 0n), -1n);
    assert.equal(errnoName(errno()), 'ENODATA');
    assert.equal(calls.strlen('käse'), 5n);
    assert.equal(calls.strlen(Buffer.from([0xff, 0xfe, 0])), 2n);
    assert.equal(calls.strlenOfBytes(Buffer.from('abc\0')), 3n);
    assert.equal(calls.getenv('SURELY_NOT_SET_HERE'), 0n);
    const path = calls.getenv('PATH');
    assert.equal(implementation.read(path, 3).toString(), process.env['PATH']?.slice(0, 3));
    assert.equal(calls.strerror(2), 'No such file or directory');
  });
}

test('opening a missing library fails with its name', () => {
  assert.throws(() => openLibrary('libmissing.so.0', {}), /libmissing/);
  assert.throws(() => openLibrary('libc.so.6', { nosuchcall: { returns: 'i32', arguments: [] } }), /nosuchcall/);
});

test('a kernel error reads like Go', () => {
  const error = new KernelError(2, 'mount', '/a:/b');
  assert.equal(error.message, 'mount /a:/b: no such file or directory');
  assert.deepEqual([error.code, error.errno, error.syscall, error.operand], ['ENOENT', 2, 'mount', '/a:/b']);
  assert.equal(errnoText(16), 'device or resource busy');
  assert.equal(errnoText(17), 'file exists');
  assert.equal(errnoName(11), 'EAGAIN');
  assert.equal(errnoName(95), 'ENOTSUP');
});
