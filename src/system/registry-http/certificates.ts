/** Certificates for one registry, as dockerd reads `certs.d/<host>/`: `*.crt` are CAs, `*.cert` with `*.key` the client's. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { GantryError } from '#types/errors.ts';

export interface HostCertificates {
  /** CAs to trust; undefined: the system's. */
  readonly ca: readonly string[] | undefined;
  readonly certificates: readonly { readonly cert: string; readonly key: string }[];
}

/** Files of one directory that are read. */
const FILES_LIMIT = 256;
/** Where Debian and most others keep the system's CAs. */
const SYSTEM_BUNDLE = '/etc/ssl/certs/ca-certificates.crt';

async function systemRoots(): Promise<readonly string[]> {
  try {
    return [await readFile(SYSTEM_BUNDLE, 'utf8')];
  } catch {
    return rootCertificates;
  }
}

/** Reads a host's directory; a missing one means nothing special. */
export async function readHostCertificates(root: string, host: string): Promise<HostCertificates> {
  const directory = join(root, host);
  let names: string[];
  try {
    names = (await readdir(directory)).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { ca: await systemRoots(), certificates: [] };
    throw new GantryError('invalid', `open ${directory}: ${(error as Error).message}`, { cause: error });
  }
  if (names.length > FILES_LIMIT) throw new GantryError('invalid', `${directory}: more than ${FILES_LIMIT} files`);
  const ca: string[] = [...(await systemRoots())];
  const certificates: { cert: string; key: string }[] = [];
  for (const name of names) {
    const read = (file: string): Promise<string> => readFile(join(directory, file), 'utf8');
    if (name.endsWith('.crt')) ca.push(await read(name));
    else if (name.endsWith('.cert')) {
      const key = `${name.slice(0, -'.cert'.length)}.key`;
      if (!names.includes(key)) {
        throw new GantryError(
          'invalid',
          `missing key ${key} for client certificate ${name}. CA certificates must use the extension .crt`,
        );
      }
      certificates.push({ cert: await read(name), key: await read(key) });
    } else if (name.endsWith('.key')) {
      const cert = `${name.slice(0, -'.key'.length)}.cert`;
      if (!names.includes(cert)) {
        throw new GantryError('invalid', `missing client certificate ${cert} for key ${name}`);
      }
    }
  }
  return { ca, certificates };
}
