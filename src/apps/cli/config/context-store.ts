/**
 * Docker's context store below the configuration directory: contexts/meta/<id>/meta.json and
 * contexts/tls/<id>/<endpoint>/<file>, where the ID is the SHA-256 of the name. Files are written aside and renamed.
 */
import { ExitError } from '../args/usage-error.ts';
import { contextId, GANTRY_SOCKET } from './endpoint.ts';

const fs = process.getBuiltinModule('node:fs');

const META_MODE = 0o644;
const TLS_MODE = 0o600;

/** What a context says. */
export interface Context {
  readonly Name: string;
  readonly Metadata: Readonly<Record<string, unknown>>;
  readonly Endpoints: Readonly<Record<string, { readonly Host?: string; readonly SkipTLSVerify?: boolean }>>;
}

/** TLS files by endpoint and name. */
export type TlsFiles = ReadonlyMap<string, ReadonlyMap<string, Buffer>>;

/** Where the store is, and what stands for the context `default`. */
export class ContextStore {
  readonly #root: string;
  readonly #defaultHost: string;

  constructor(configDirectory: string, defaultHost: string = process.env['DOCKER_HOST'] || `unix://${GANTRY_SOCKET}`) {
    this.#root = `${configDirectory}/contexts`;
    this.#defaultHost = defaultHost;
  }

  metadataPath(name: string): string {
    return `${this.#root}/meta/${contextId(name)}`;
  }

  tlsPath(name: string): string {
    return `${this.#root}/tls/${contextId(name)}`;
  }

  exists(name: string): boolean {
    return name === 'default' || fs.existsSync(this.metadataPath(name));
  }

  /** Reads a context; throws docker's text when there is none. */
  read(name: string): Context {
    if (name === 'default')
      return {
        Name: 'default',
        Metadata: {},
        Endpoints: { docker: { Host: this.#defaultHost, SkipTLSVerify: false } },
      };
    const path = `${this.metadataPath(name)}/meta.json`;
    let text: string;
    try {
      text = fs.readFileSync(path, 'utf8');
    } catch {
      throw new ExitError(1, `context "${name}": context not found: open ${path}: no such file or directory\n`);
    }
    return JSON.parse(text) as Context;
  }

  /** Every context, the default one first of its name. */
  list(): Context[] {
    let ids: string[] = [];
    try {
      ids = fs.readdirSync(`${this.#root}/meta`);
    } catch {
      // No store yet.
    }
    const stored = ids.map(
      (id) => JSON.parse(fs.readFileSync(`${this.#root}/meta/${id}/meta.json`, 'utf8')) as Context,
    );
    return [this.read('default'), ...stored].sort((a, b) => (a.Name < b.Name ? -1 : 1));
  }

  write(context: Context): void {
    const directory = this.metadataPath(context.Name);
    fs.mkdirSync(directory, { recursive: true, mode: 0o755 });
    this.#writeFile(`${directory}/meta.json`, JSON.stringify(context), META_MODE);
  }

  /** The names of the TLS files of each endpoint. */
  tlsNames(name: string): Record<string, string[]> {
    const found: Record<string, string[]> = {};
    if (name === 'default' || !fs.existsSync(this.tlsPath(name))) return found;
    for (const endpoint of fs.readdirSync(this.tlsPath(name)))
      found[endpoint] = fs.readdirSync(`${this.tlsPath(name)}/${endpoint}`).sort();
    return found;
  }

  readTls(name: string): TlsFiles {
    return new Map(
      Object.entries(this.tlsNames(name)).map(([endpoint, files]) => [
        endpoint,
        new Map(files.map((file) => [file, fs.readFileSync(`${this.tlsPath(name)}/${endpoint}/${file}`)])),
      ]),
    );
  }

  /** Replaces the TLS files of a context. */
  writeTls(name: string, endpoints: TlsFiles): void {
    fs.rmSync(this.tlsPath(name), { recursive: true, force: true });
    for (const [endpoint, files] of endpoints) {
      const directory = `${this.tlsPath(name)}/${endpoint}`;
      if (files.size > 0) fs.mkdirSync(directory, { recursive: true, mode: 0o700 });
      for (const [file, content] of files) this.#writeFile(`${directory}/${file}`, content, TLS_MODE);
    }
  }

  remove(name: string): void {
    fs.rmSync(this.metadataPath(name), { recursive: true, force: true });
    fs.rmSync(this.tlsPath(name), { recursive: true, force: true });
  }

  #writeFile(path: string, content: string | Buffer, mode: number): void {
    const temporary = `${path}.${process.pid}.tmp`;
    fs.writeFileSync(temporary, content, { mode, flag: 'wx' });
    fs.renameSync(temporary, path);
  }
}
