/**
 * Changes config.json: the file is read anew, changed, written beside itself and renamed, so that neither a crash
 * nor another reader sees half of it. Keys this CLI does not know stay. It may hold secrets: mode 0600, unless the
 * file that is there has another mode.
 */
import { ExitError } from '../args/usage-error.ts';

const fs = process.getBuiltinModule('node:fs');
const nodePath = process.getBuiltinModule('node:path');

const MODE = 0o600;
const DIRECTORY_MODE = 0o700;

/** Any content of config.json. */
export type RawConfig = Record<string, unknown>;

function readRaw(path: string): RawConfig {
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new ExitError(1, `${(error as Error).message}\n`);
  }
  if (text.trim() === '') return {};
  try {
    return JSON.parse(text) as RawConfig;
  } catch (error) {
    // What cannot be read is not overwritten: it may hold the user's credentials.
    throw new ExitError(1, `Error loading config file: ${path}: ${(error as Error).message}\n`);
  }
}

/** The file behind a link, which stays a link; a dangling one names the file to make. */
function target(path: string): string {
  try {
    return fs.realpathSync(path);
  } catch {
    const link = fs.lstatSync(path, { throwIfNoEntry: false });
    return link?.isSymbolicLink() ? nodePath.resolve(nodePath.dirname(path), fs.readlinkSync(path)) : path;
  }
}

function write(path: string, text: string): void {
  const old = fs.statSync(path, { throwIfNoEntry: false });
  const temporary = `${path}.${process.pid}.${Date.now()}`;
  const descriptor = fs.openSync(temporary, 'wx', MODE);
  try {
    fs.writeSync(descriptor, text);
    if (old !== undefined) {
      fs.fchmodSync(descriptor, old.mode & 0o777);
      if (process.getuid?.() === 0) fs.fchownSync(descriptor, old.uid, old.gid);
    }
    fs.fsyncSync(descriptor);
    fs.closeSync(descriptor);
    fs.renameSync(temporary, path);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw error;
  }
}

/** Applies `change` to config.json in `directory`. */
export function updateConfig(directory: string, change: (config: RawConfig) => void): void {
  const path = `${directory}/config.json`;
  const config = readRaw(path);
  // Compat: docker writes `auths` even when it is empty.
  const next: RawConfig = { auths: {}, ...config };
  change(next);
  fs.mkdirSync(directory, { recursive: true, mode: DIRECTORY_MODE });
  write(target(path), JSON.stringify(next, undefined, '\t'));
}
