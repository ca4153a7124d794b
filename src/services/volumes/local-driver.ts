/** The `local` volume driver: `<data root>/volumes/<name>/_data`, optionally with a file system mounted on it. */
import { mkdirSync, realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { MNT_DETACH, mount, readMounts, tryUnmount } from '#system/kernel/mount.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { VolumeDriver } from './contract.ts';

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;
const OPTIONS: readonly string[] = ['type', 'o', 'device', 'size'];

/** Mounts what a volume's options describe; replaced in tests. */
export interface OptionMounter {
  mount(source: string, target: string, type: string, options: string): void;
  unmount(target: string): void;
  isMounted(target: string): boolean;
}

const kernelMounter: OptionMounter = {
  mount(source, target, type, options) {
    const parts = options.split(',').filter((option) => option !== '');
    const flags = parts.reduce((sum, option) => sum | (MOUNT_FLAGS[option] ?? 0n), 0n);
    const data = parts.filter((option) => MOUNT_FLAGS[option] === undefined).join(',');
    mount(source, target, { ...(type === '' ? {} : { type }), flags, ...(data === '' ? {} : { data }) });
  },
  unmount(target) {
    tryUnmount(target, MNT_DETACH);
  },
  isMounted(target) {
    const path = realpathSync(target);
    return readMounts().some((entry) => entry.mountPoint === path);
  },
};

/** mount(2) flags by option name (linux/mount.h). */
const MOUNT_FLAGS: Readonly<Record<string, bigint>> = {
  defaults: 0n,
  rw: 0n,
  ro: 1n,
  nosuid: 2n,
  nodev: 4n,
  noexec: 8n,
  sync: 16n,
  dirsync: 128n,
  noatime: 1024n,
  nodiratime: 2048n,
  bind: 4096n,
  rbind: 4096n | 16384n,
  relatime: 1n << 21n,
  strictatime: 1n << 24n,
};

/** Volumes as plain directories. Names were checked here at creation, so they never leave the root. */
export class LocalDriver implements VolumeDriver {
  readonly name = 'local';
  readonly scope = 'local';
  readonly #root: string;
  readonly #optionsOf: (name: string) => Readonly<Record<string, string>>;
  readonly #mounter: OptionMounter;
  readonly #holders = new Map<string, Set<string>>();

  constructor(
    root: string,
    optionsOf: (name: string) => Readonly<Record<string, string>>,
    mounter: OptionMounter = kernelMounter,
  ) {
    this.#root = root;
    this.#optionsOf = optionsOf;
    this.#mounter = mounter;
  }

  path(name: string): string {
    return join(this.#root, name, '_data');
  }

  async create(name: string, options: Readonly<Record<string, string>>): Promise<void> {
    checkVolumeName(name);
    checkOptions(options);
    mkdirSync(this.#root, { recursive: true, mode: 0o701 });
    mkdirSync(join(this.#root, name), { recursive: true, mode: 0o701 });
    mkdirSync(this.path(name), { recursive: true, mode: 0o755 });
  }

  async remove(name: string): Promise<void> {
    if ((this.#holders.get(name)?.size ?? 0) > 0) {
      throw new GantryError('system', `unable to remove volume: remove ${name}: volume has active mounts`);
    }
    if (needsMount(this.#optionsOf(name))) this.#mounter.unmount(this.path(name));
    rmSync(join(this.#root, name), { recursive: true, force: true });
  }

  async mount(name: string, holder: string): Promise<string> {
    const holders = this.#holders.get(name) ?? new Set<string>();
    const options = this.#optionsOf(name);
    // Mounted without a holder: a daemon before this one did it, and the mount outlived it.
    if (needsMount(options) && holders.size === 0 && !this.#mounter.isMounted(this.path(name))) {
      const { device = '', type = '', o = '' } = options;
      try {
        this.#mounter.mount(device, this.path(name), type, o);
      } catch (error) {
        throw new GantryError('system', `failed to mount local volume: ${errorMessage(error)}`, { cause: error });
      }
    }
    this.#holders.set(name, holders.add(holder));
    return this.path(name);
  }

  async unmount(name: string, holder: string): Promise<void> {
    const holders = this.#holders.get(name);
    if (holders?.delete(holder) !== true || holders.size > 0) return;
    if (needsMount(this.#optionsOf(name))) this.#mounter.unmount(this.path(name));
  }
}

function needsMount(options: Readonly<Record<string, string>>): boolean {
  return (options['device'] ?? '') !== '' || (options['type'] ?? '') !== '';
}

/** Throws docker's texts for a bad name. */
export function checkVolumeName(name: string): void {
  if (name.length === 1) {
    throw new GantryError(
      'invalid',
      `create ${name}: volume name is too short, names should be at least two alphanumeric characters`,
    );
  }
  if (!NAME.test(name)) {
    throw new GantryError(
      'invalid',
      `create ${name}: "${name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
    );
  }
}

function checkOptions(options: Readonly<Record<string, string>>): void {
  for (const name of Object.keys(options)) {
    if (!OPTIONS.includes(name)) throw new GantryError('invalid', `invalid option: "${name}"`);
  }
  if (options['size']) throw new GantryError('invalid', 'quota size requested but no quota support');
  const some = (options['type'] ?? '') !== '' || (options['o'] ?? '') !== '';
  if (!some) return;
  for (const name of ['device', 'type']) {
    // A bind needs no type.
    if (name === 'type' && /(^|,)r?bind(,|$)/.test(options['o'] ?? '')) continue;
    if (!options[name]) throw new GantryError('invalid', `missing required option: "${name}"`);
  }
}
