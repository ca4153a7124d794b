/**
 * Manifest lists being put together, as docker keeps them: manifests/<list>/<image> below the configuration directory,
 * one JSON file an image, with `:` and `/` of the names replaced.
 */
import { canonicalString, type Reference } from '#types/reference.ts';
import { ExitError } from '../args/usage-error.ts';

const fs = process.getBuiltinModule('node:fs');

/** An OCI platform. */
export interface ManifestPlatform {
  architecture?: string;
  os?: string;
  'os.version'?: string;
  'os.features'?: string[];
  variant?: string;
}

/** A manifest of a list. The manifest is held as its own bytes, so that its digest stays. */
export interface ImageManifest {
  /** The whole name it was found under. */
  readonly Ref: string;
  readonly Descriptor: {
    readonly mediaType: string;
    readonly digest: string;
    readonly size: number;
    platform?: ManifestPlatform;
  };
  readonly Raw: Buffer;
}

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

/** The file's form, which is also what `inspect --verbose` shows. */
export function manifestDocument(manifest: ImageManifest): Record<string, unknown> {
  const parsed = JSON.parse(manifest.Raw.toString()) as unknown;
  const key = manifest.Descriptor.mediaType === OCI_MANIFEST ? 'OCIManifest' : 'SchemaV2Manifest';
  return {
    Ref: manifest.Ref,
    Descriptor: manifest.Descriptor,
    Raw: manifest.Raw.toString('base64'),
    [key]: parsed,
  };
}

function fileName(reference: Reference): string {
  return canonicalString(reference).replaceAll(':', '-').replaceAll('/', '_');
}

function missing(reference: Reference): ExitError {
  return new ExitError(1, `No such manifest: ${canonicalString(reference)}\n`);
}

export class ManifestStore {
  readonly #root: string;

  constructor(configDirectory: string) {
    this.#root = `${configDirectory}/manifests`;
  }

  #list(list: Reference): string {
    return `${this.#root}/${fileName(list)}`;
  }

  hasList(list: Reference): boolean {
    return fs.existsSync(this.#list(list));
  }

  /** One image of a list; undefined when it is not there. */
  find(list: Reference, image: Reference): ImageManifest | undefined {
    const path = `${this.#list(list)}/${fileName(image)}`;
    return fs.existsSync(path) ? this.#read(path) : undefined;
  }

  get(list: Reference, image: Reference): ImageManifest {
    const found = this.find(list, image);
    if (found === undefined) throw missing(image);
    return found;
  }

  /** Every image of a list. */
  all(list: Reference): ImageManifest[] {
    if (!this.hasList(list)) throw missing(list);
    return fs
      .readdirSync(this.#list(list))
      .sort()
      .map((name) => this.#read(`${this.#list(list)}/${name}`));
  }

  save(list: Reference, image: Reference, manifest: ImageManifest): void {
    fs.mkdirSync(this.#list(list), { recursive: true, mode: 0o755 });
    const path = `${this.#list(list)}/${fileName(image)}`;
    fs.writeFileSync(`${path}.${process.pid}.tmp`, JSON.stringify(manifestDocument(manifest)), { flag: 'wx' });
    fs.renameSync(`${path}.${process.pid}.tmp`, path);
  }

  remove(list: Reference): void {
    fs.rmSync(this.#list(list), { recursive: true, force: true });
  }

  #read(path: string): ImageManifest {
    const stored = JSON.parse(fs.readFileSync(path, 'utf8')) as {
      Ref: string;
      Descriptor: ImageManifest['Descriptor'];
      Raw?: string;
    };
    if (stored.Raw === undefined)
      throw new ExitError(1, `${path} was made by an old client and has no manifest in it: create the list anew\n`);
    return { Ref: stored.Ref, Descriptor: stored.Descriptor, Raw: Buffer.from(stored.Raw, 'base64') };
  }
}
