/**
 * Volumes: named directories that outlive containers. A volume is created (or found) by name, referenced by
 * containers, mounted while one of them runs, and removed only when nobody references it.
 * `local` is the only driver yet; the driver contract is what plugins will implement later.
 */
import type { Volume } from '#wire/engine.ts';

/** One kind of storage. Paths are host directories. */
export interface VolumeDriver {
  readonly name: string;
  readonly scope: 'local' | 'global';
  create(name: string, options: Readonly<Record<string, string>>): Promise<void>;
  remove(name: string): Promise<void>;
  path(name: string): string;
  mount(name: string, holder: string): Promise<string>;
  unmount(name: string, holder: string): Promise<void>;
}

export interface CreateVolumeOptions {
  readonly driver?: string;
  readonly options?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  /** Container that holds a reference from the start, so that a prune cannot take the volume away. */
  readonly reference?: string;
}

export interface Volumes {
  /** Creates a volume, or finds the one of that name; an empty name makes an anonymous one. `created` tells which. */
  create(name: string, options?: CreateVolumeOptions): Promise<{ readonly volume: Volume; readonly created: boolean }>;
  /** Throws `notFound`: `get {name}: no such volume`. */
  get(name: string): Volume;
  list(): Volume[];
  isAnonymous(name: string): boolean;
  /** IDs of containers that use the volume. */
  references(name: string): string[];
  addReference(name: string, container: string): void;
  /** Drops one container's references; to one volume when named, else to all. */
  release(container: string, name?: string): void;
  /** Throws `conflict` while referenced. `force` ignores a missing volume. */
  remove(name: string, force?: boolean): Promise<void>;
  /** Makes the volume's content available; the host path. */
  mount(name: string, container: string): Promise<string>;
  unmount(name: string, container: string): Promise<void>;
  /** Whether a volume's directory is empty, so that image content may be copied into it. */
  isEmpty(name: string): Promise<boolean>;
  sizeBytes(name: string): Promise<number>;
}
