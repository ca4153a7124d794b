/**
 * Users of a registry: an htpasswd file with bcrypt hashes (`htpasswd -B`), read again when it changes.
 * Other schemes are refused when the file is read, naming the line, because they are too weak to face a network.
 */
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { errorMessage, GantryError } from '#types/errors.ts';
import { PasswordChecker } from './password-checker.ts';

const BCRYPT = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/;
/** Above this a single login takes seconds. */
const MAX_BCRYPT_COST = 14;
const MAX_FILE_BYTES = 16 * 1024 * 1024;
/** Longer passwords are refused, not cut: bcrypt reads 72 bytes. */
const MAX_PASSWORD_BYTES = 72;

/** Name → bcrypt hash. */
export function parseHtpasswd(text: string): Map<string, string> {
  const users = new Map<string, string>();
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const colon = line.indexOf(':');
    const name = line.slice(0, colon);
    const hash = line.slice(colon + 1).trim();
    if (colon < 1) throw new GantryError('invalid', `htpasswd line ${index + 1}: there is no "user:hash"`);
    const match = BCRYPT.exec(hash);
    if (match === null) {
      throw new GantryError(
        'invalid',
        `htpasswd line ${index + 1}: the password of ${JSON.stringify(name)} is not hashed with bcrypt; make it with htpasswd -B`,
      );
    }
    if (Number(match[1]) > MAX_BCRYPT_COST) {
      throw new GantryError(
        'invalid',
        `htpasswd line ${index + 1}: bcrypt cost ${match[1]} is above ${MAX_BCRYPT_COST}`,
      );
    }
    users.set(name, hash);
  }
  return users;
}

/** The users of one file. */
export class Users implements AsyncDisposable {
  readonly #file: string;
  readonly #warn: (message: string) => void;
  readonly #checker = new PasswordChecker();
  #users: Map<string, string>;
  #stamp: string;

  /** Reads the file; throws `invalid` naming what is wrong with it. */
  constructor(file: string, warn: (message: string) => void) {
    this.#file = file;
    this.#warn = warn;
    this.#stamp = stampOf(file);
    this.#users = readUsers(file);
  }

  /** Whether the password is right. Throws TOOMANYREQUESTS when too many are being checked. */
  async verify(name: string, password: string): Promise<boolean> {
    this.refresh();
    if (Buffer.byteLength(password) > MAX_PASSWORD_BYTES) return false;
    // An unknown user costs as much time as a known one.
    const [decoy] = this.#users.values();
    const hash = this.#users.get(name) ?? decoy;
    if (hash === undefined) return false;
    return (await this.#checker.check(password, hash)) && this.#users.has(name);
  }

  /** Names the present password of a user without telling it; undefined for an unknown user. */
  credentialMark(name: string): string | undefined {
    this.refresh();
    const hash = this.#users.get(name);
    return hash && createHash('sha256').update(hash).digest('base64url');
  }

  /** Reads the file again when it changed; a broken file keeps the old users. */
  refresh(): void {
    const stamp = stampOf(this.#file);
    if (stamp === this.#stamp) return;
    this.#stamp = stamp;
    try {
      this.#users = readUsers(this.#file);
    } catch (error) {
      this.#warn(`the htpasswd file was not taken over: ${errorMessage(error)}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#checker[Symbol.asyncDispose]();
  }
}

function stampOf(file: string): string {
  const stat = statSync(file, { throwIfNoEntry: false, bigint: true });
  return stat === undefined ? '' : `${stat.ino} ${stat.mtimeNs} ${stat.size}`;
}

function readUsers(file: string): Map<string, string> {
  const size = statSync(file, { throwIfNoEntry: false })?.size;
  if (size === undefined) throw new GantryError('invalid', `htpasswd file ${file}: no such file`);
  if (size > MAX_FILE_BYTES)
    throw new GantryError('invalid', `htpasswd file ${file}: larger than ${MAX_FILE_BYTES} bytes`);
  return parseHtpasswd(readFileSync(file, 'utf8'));
}
