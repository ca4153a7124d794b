import assert from 'node:assert/strict';
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { decodeBytes, encodeBytes } from '#system/kernel/bytes.ts';
import { tryLock } from '#system/kernel/flock.ts';
import { mount, mountWithOptions, readMounts, tryUnmount, unmount } from '#system/kernel/mount.ts';
import { createNetworkNamespace, inNetworkNamespace, removeNetworkNamespace } from '#system/kernel/namespaces.ts';
import { changeModeAt, changeTimesAt, makeDevice, makeLinkAt, makeNodeAt, S_IFCHR } from '#system/kernel/node.ts';
import { listFd, openInRoot, openRoot, readFileInRoot, readLinkAt, statAt, statInRoot } from '#system/kernel/path.ts';
import { killProcess } from '#system/kernel/process.ts';
import {
  AF_NETLINK,
  bindSocket,
  closeSocket,
  MSG_DONTWAIT,
  netlinkAddress,
  netlinkPort,
  openSocket,
  receive,
  SOCK_RAW,
} from '#system/kernel/socket.ts';
import { getXattr, listXattrs, removeXattr, setXattr } from '#system/kernel/xattr.ts';

function temporary(context: { after(work: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-kernel-'));
  context.after(() => {
    for (const entry of readMounts().reverse())
      if (entry.mountPoint.startsWith(`${directory}/`)) tryUnmount(entry.mountPoint);
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

test('mounting shows in mountinfo, failing names both ends', (context) => {
  const directory = join(temporary(context), 'with space');
  mkdirSync(directory);
  mount('tmpfs', directory, { type: 'tmpfs', data: 'size=64k' });
  assert.equal(readMounts().find((entry) => entry.mountPoint === directory)?.type, 'tmpfs');
  unmount(directory);
  assert.equal(tryUnmount(directory), false);
  assert.throws(() => mount('/missing-a', directory, { flags: 4096n }), {
    code: 'ENOENT',
    message: `mount /missing-a:${directory}: no such file or directory`,
  });
});

test('an overlay mounts option by option', (context) => {
  const directory = temporary(context);
  for (const name of ['a', 'b', 'm']) mkdirSync(join(directory, name));
  writeFileSync(join(directory, 'b', 'file'), 'below');
  mountWithOptions('overlay', join(directory, 'm'), [
    ['lowerdir+', join(directory, 'a')],
    ['lowerdir+', join(directory, 'b')],
  ]);
  assert.equal(readFileSync(join(directory, 'm', 'file'), 'utf8'), 'below');
});

test('a network namespace lives as a file and work inside it returns home, also when it throws', (context) => {
  const path = join(temporary(context), 'net');
  const home = readlinkSync('/proc/thread-self/ns/net');
  createNetworkNamespace(path);
  assert.equal(readlinkSync('/proc/thread-self/ns/net'), home);
  const [inside, links] = inNetworkNamespace(
    path,
    () => [readlinkSync('/proc/thread-self/ns/net'), networkInterfaces()] as const,
  );
  assert.notEqual(inside, home);
  assert.deepEqual(Object.keys(links), []);
  assert.throws(
    () =>
      inNetworkNamespace(path, () => {
        throw new Error('inside');
      }),
    /inside/,
  );
  assert.equal(readlinkSync('/proc/thread-self/ns/net'), home);
  assert.throws(() => createNetworkNamespace(path), { code: 'EEXIST' });
  removeNetworkNamespace(path);
  removeNetworkNamespace(path);
});

test('paths in a root never leave it', (context) => {
  const outside = temporary(context);
  const root = join(outside, 'root');
  mkdirSync(root);
  writeFileSync(join(outside, 'secret'), 'secret');
  symlinkSync('/', join(root, 'top'));
  symlinkSync('../../../secret', join(root, 'up'));
  symlinkSync(join(outside, 'secret'), join(root, 'absolute'));
  symlinkSync('loop', join(root, 'loop'));
  writeFileSync(join(root, 'inside'), 'inside');
  const fd = openRoot(root);
  context.after(() => closeSync(fd));
  for (const path of ['up', 'absolute', '../secret', '/top/../secret', 'loop']) {
    assert.equal(readFileInRoot(fd, path, 100), undefined, path);
  }
  assert.equal(readFileInRoot(fd, '/top/top/inside', 100)?.toString(), 'inside');
  assert.throws(() => readFileInRoot(fd, 'inside', 3), { code: 'EFBIG' });
  assert.throws(() => openInRoot(fd, 'a\0b', constants.O_RDONLY), { code: 'EINVAL' });
  assert.equal(statInRoot(fd, 'missing/x'), undefined);
  assert.equal(readLinkAt(fd, 'up'), '../../../secret');
});

test('nodes, modes, exact times, attributes and names that are not UTF-8', (context) => {
  const directory = temporary(context);
  const fd = openRoot(directory);
  context.after(() => closeSync(fd));
  makeNodeAt(fd, 'null', S_IFCHR | 0o600, makeDevice(1, 3));
  changeModeAt(fd, 'null', 0o4755);
  changeTimesAt(fd, 'null', { accessed: -1n, modified: 1_600_000_000_123_456_789n });
  const stat = statAt(fd, 'null');
  assert.deepEqual([stat?.deviceMajor, stat?.deviceMinor, stat?.mode], [1, 3, S_IFCHR | 0o4755]);
  assert.equal(stat?.modifiedNs, 1_600_000_000_123_456_789n);
  assert.equal(stat?.accessedNs, -1n);
  const path = join(directory, 'null');
  setXattr(path, 'trusted.test', Buffer.from([0, 1, 255]));
  assert.deepEqual(getXattr(path, 'trusted.test'), Buffer.from([0, 1, 255]));
  assert.deepEqual(listXattrs(path), ['trusted.test']);
  removeXattr(path, 'trusted.test');
  assert.equal(getXattr(path, 'trusted.test'), undefined);
  const odd = decodeBytes(Buffer.from([0x61, 0xff, 0xc3, 0xa4, 0xc3]));
  assert.deepEqual(encodeBytes(odd), Buffer.from([0x61, 0xff, 0xc3, 0xa4, 0xc3]));
  makeLinkAt(fd, odd, 'x');
  assert.ok(listFd(fd).includes(odd));
});

test('netlink sockets bind, locks exclude, processes are signalled by descriptor', (context) => {
  const fd = openSocket(AF_NETLINK, SOCK_RAW, 0);
  bindSocket(fd, netlinkAddress());
  assert.notEqual(netlinkPort(fd), 0);
  assert.equal(receive(fd, Buffer.alloc(64), MSG_DONTWAIT), undefined);
  closeSocket(fd);
  const path = join(temporary(context), 'lock');
  const lock = tryLock(path);
  assert.equal(tryLock(path), undefined);
  lock?.[Symbol.dispose]();
  const again = tryLock(path);
  assert.notEqual(again, undefined);
  again?.[Symbol.dispose]();
  assert.equal(killProcess(process.pid, 0), true);
  assert.equal(killProcess(2 ** 22 - 1, 0), false);
});
