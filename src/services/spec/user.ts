/**
 * Resolves `USER[:GROUP]` and `--group-add` against /etc/passwd and /etc/group of the container's file system.
 * The files are hostile: they are read through an injected bounded reader that never leaves the root.
 */
import { GantryError } from '#types/errors.ts';
import type { OciUser } from '#types/oci.ts';

/** Reads a file inside the container's root; undefined when it does not exist. */
export type ReadInRoot = (path: string, maxBytes: number) => Buffer | undefined;

/** Larger files are cut: no sane image comes near. */
export const PASSWD_MAX_BYTES: number = 4 * 1024 * 1024;
const MAX_ID = 2 ** 31 - 1;

export interface ResolvedUser {
  readonly user: OciUser;
  readonly home: string;
}

interface PasswdEntry {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

interface GroupEntry {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

function lines(read: ReadInRoot, path: string): string[][] {
  const text = read(path, PASSWD_MAX_BYTES)?.toString('utf8') ?? '';
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => line.split(':'));
}

function passwd(read: ReadInRoot): PasswdEntry[] {
  return lines(read, '/etc/passwd').map(([name = '', , uid = '', gid = '', , home = '']) => ({
    name,
    uid: Number.parseInt(uid, 10) || 0,
    gid: Number.parseInt(gid, 10) || 0,
    home,
  }));
}

function groups(read: ReadInRoot): GroupEntry[] {
  return lines(read, '/etc/group').map(([name = '', , gid = '', members = '']) => ({
    name,
    gid: Number.parseInt(gid, 10) || 0,
    members: members.split(','),
  }));
}

function numeric(text: string): number | undefined {
  return /^-?\d+$/.test(text) ? Number(text) : undefined;
}

function checkId(id: number): void {
  if (id < 0 || id > MAX_ID) throw new GantryError('system', `uids and gids must be in range 0-${MAX_ID}`);
}

/** The user a container or exec runs as; an empty `specification` is root. */
export function resolveUser(specification: string, groupAdd: readonly string[], read: ReadInRoot): ResolvedUser {
  const [userText = '', groupText = ''] = specification.split(':');
  const wantedUid = numeric(userText);
  const known = passwd(read);
  const entry =
    userText === ''
      ? known.find((one) => one.uid === 0)
      : known.find((one) => one.name === userText || one.uid === wantedUid);
  if (entry === undefined && userText !== '' && wantedUid === undefined) {
    throw new GantryError('system', `unable to find user ${userText}: no matching entries in passwd file`);
  }
  const uid = entry?.uid ?? wantedUid ?? 0;
  checkId(uid);
  const allGroups = groups(read);
  const gid = groupText === '' ? (entry?.gid ?? 0) : groupId(groupText, allGroups);
  const supplementary =
    groupText === '' && entry !== undefined
      ? allGroups.filter((group) => group.members.includes(entry.name)).map((group) => group.gid)
      : [];
  const added = groupAdd.map((text) => additionalGroup(text, allGroups));
  return {
    // Compat: the primary group is listed among the additional ones (CVE-2022-36109).
    user: { uid, gid, additionalGids: [...new Set([gid, ...supplementary, ...added])] },
    home: entry?.home ?? '/',
  };
}

function groupId(text: string, known: readonly GroupEntry[]): number {
  const wanted = numeric(text);
  const found = known.find((group) => group.name === text || group.gid === wanted);
  const gid = found?.gid ?? wanted;
  if (gid === undefined) throw unknownGroup(text);
  checkId(gid);
  return gid;
}

function additionalGroup(text: string, known: readonly GroupEntry[]): number {
  const wanted = numeric(text);
  const gid = known.find((group) => group.name === text || group.gid === wanted)?.gid ?? wanted;
  if (gid === undefined) throw unknownGroup(text);
  checkId(gid);
  return gid;
}

function unknownGroup(text: string): GantryError {
  return new GantryError('system', `unable to find group ${text}: no matching entries in group file`);
}
