/** Copies a tree exactly: owners, modes, times, attributes, hard links, devices; blocks shared where possible. */
import { closeSync, constants, copyFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { fsPath } from '#system/kernel/bytes.ts';
import { hasCode } from '#system/kernel/errno.ts';
import * as node from '#system/kernel/node.ts';
import { type FileStat, listFd, openRoot, readLinkAt, statAt } from '#system/kernel/path.ts';
import { openDirectoryAt } from '#system/kernel/tree.ts';
import { getXattr, listXattrs, setXattr } from '#system/kernel/xattr.ts';

const STRETCH_MS = 8;

interface CopyState {
  /** Source inode → first copy. */
  readonly links: Map<string, { path: string }>;
  stretchStart: number;
}

function copyXattrs(from: string, to: string): void {
  if (!from.isWellFormed()) return;
  for (const name of listXattrs(from)) {
    const value = getXattr(from, name);
    if (value === undefined) continue;
    try {
      setXattr(to, name, value);
    } catch (error) {
      if (!hasCode(error, 'ENOTSUP', 'EPERM')) throw error;
    }
  }
}

function makeCopy(
  from: { fd: number; stat: FileStat; path: string },
  to: { fd: number; path: string },
  name: string,
): void {
  const { stat } = from;
  switch (stat.mode & node.S_IFMT) {
    case node.S_IFREG:
      copyFileSync(fsPath(from.path), fsPath(to.path), constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
      break;
    case node.S_IFDIR:
      node.makeDirectoryAt(to.fd, name, 0o700);
      break;
    case node.S_IFLNK:
      node.makeLinkAt(to.fd, name, readLinkAt(from.fd, name));
      break;
    default:
      node.makeNodeAt(to.fd, name, stat.mode, node.makeDevice(stat.deviceMajor, stat.deviceMinor));
  }
}

async function copyLevel(
  from: { fd: number; path: string },
  to: { fd: number; path: string },
  state: CopyState,
): Promise<void> {
  for (const name of listFd(from.fd)) {
    if (performance.now() - state.stretchStart > STRETCH_MS) {
      await setImmediate();
      state.stretchStart = performance.now();
    }
    const stat = statAt(from.fd, name);
    if (stat === undefined) continue;
    const [source, target] = [`${from.path}/${name}`, `${to.path}/${name}`];
    const isDirectory = (stat.mode & node.S_IFMT) === node.S_IFDIR;
    const inode = `${stat.fileSystem}:${stat.inode}`;
    const first = stat.links > 1 && !isDirectory ? state.links.get(inode) : undefined;
    if (first !== undefined) {
      node.hardLinkAt({ fd: -100, name: first.path }, { fd: to.fd, name });
      continue;
    }
    if (stat.links > 1) state.links.set(inode, { path: target });
    makeCopy({ fd: from.fd, stat, path: source }, { fd: to.fd, path: target }, name);
    if (isDirectory) {
      const children = { source: openDirectoryAt(from.fd, name), target: openDirectoryAt(to.fd, name) };
      try {
        await copyLevel({ fd: children.source, path: source }, { fd: children.target, path: target }, state);
      } finally {
        closeSync(children.source);
        closeSync(children.target);
      }
    }
    finishCopy(to.fd, name, { stat, source, target });
  }
}

function finishCopy(
  toFd: number,
  name: string,
  { stat, source, target }: { stat: FileStat; source: string; target: string },
): void {
  node.changeOwnerAt(toFd, name, stat);
  if ((stat.mode & node.S_IFMT) !== node.S_IFLNK) {
    node.changeModeAt(toFd, name, stat.mode & 0o7777);
    copyXattrs(source, target);
  }
  node.changeTimesAt(toFd, name, { accessed: stat.accessedNs, modified: stat.modifiedNs });
}

/** Copies what is in directory `source` into the empty directory `target`. Nobody else may be using either. */
export async function copyTree(source: string, target: string): Promise<void> {
  const from = openRoot(source);
  const to = openRoot(target);
  try {
    await copyLevel(
      { fd: from, path: source },
      { fd: to, path: target },
      { links: new Map(), stretchStart: performance.now() },
    );
  } finally {
    closeSync(from);
    closeSync(to);
  }
}
