/** Entries that come from no file. */
import type { TarEntry } from './contract.ts';

/** An entry with the usual defaults. */
export function makeEntry(path: string, type: TarEntry['type'], fields: Partial<TarEntry> = {}): TarEntry {
  return {
    path,
    type,
    linkPath: '',
    mode: type === 'directory' ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    userName: '',
    groupName: '',
    sizeBytes: 0,
    modifiedNs: 0n,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: new Map(),
    ...fields,
  };
}
