/**
 * Unpacks a tar stream from a container below a local directory. The archive is hostile: names that leave
 * the directory are refused and no symbolic link made by the archive is ever followed.
 */

import type { TarReadEntry } from '#system/tar/contract.ts';
import { readTar } from '#system/tar/reader.ts';

const fs = process.getBuiltinModule('node:fs');

/** How entries are placed. */
export interface UnpackOptions {
  /** Maps an entry's name to a path below the target. */
  readonly rename: (name: string) => string;
  readonly keepOwner?: boolean;
}

/** The local path of an entry; every directory on the way below `root` must be a real directory. */
function placeOf(root: string, name: string): string {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.includes('..'))
    throw new Error(`refusing to extract ${JSON.stringify(name)}: it leaves the target directory`);
  let path = root;
  for (const part of parts.slice(0, -1)) {
    path = `${path}/${part}`;
    const stats = fs.lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined) fs.mkdirSync(path, { mode: 0o755 });
    else if (!stats.isDirectory())
      throw new Error(`refusing to extract ${JSON.stringify(name)}: ${path} is not a directory`);
  }
  return parts.length === 0 ? root : `${path}/${parts.at(-1) ?? ''}`;
}

async function place({ entry, content }: TarReadEntry, root: string, options: UnpackOptions): Promise<void> {
  const path = placeOf(root, options.rename(entry.path));
  const existing = fs.lstatSync(path, { throwIfNoEntry: false });
  if (entry.type === 'directory') {
    if (existing === undefined) fs.mkdirSync(path, { mode: entry.mode });
    else if (!existing.isDirectory())
      throw new Error(`cannot overwrite non-directory ${JSON.stringify(path)} with directory`);
  } else {
    if (existing?.isDirectory() === true)
      throw new Error(`cannot overwrite directory ${JSON.stringify(path)} with non-directory`);
    if (existing !== undefined) fs.rmSync(path);
    if (entry.type === 'file') {
      await process
        .getBuiltinModule('node:stream/promises')
        .pipeline(content, fs.createWriteStream(path, { flags: 'wx', mode: entry.mode & 0o777 }));
    } else if (entry.type === 'symlink') fs.symlinkSync(entry.linkPath, path);
    else if (entry.type === 'link') fs.linkSync(placeOf(root, options.rename(entry.linkPath)), path);
    else return;
  }
  if (options.keepOwner === true) fs.lchownSync(path, entry.uid, entry.gid);
  if (entry.type === 'file' || entry.type === 'directory') fs.chmodSync(path, entry.mode);
  if (entry.type === 'file') fs.utimesSync(path, Number(entry.modifiedNs) / 1e9, Number(entry.modifiedNs) / 1e9);
}

/** Unpacks everything; returns the number of entries. */
export async function unpack(input: AsyncIterable<Buffer>, root: string, options: UnpackOptions): Promise<number> {
  let count = 0;
  for await (const item of readTar(input)) {
    await place(item, root, options);
    count++;
  }
  return count;
}
