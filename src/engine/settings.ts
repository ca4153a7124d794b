/** The daemon's configuration as use-cases see it, and where each thing lies on disk. */
import { join } from 'node:path';
import type { SpecHost } from '#services/spec/build-spec.ts';
import type { RegistryOptions } from '#system/registry-http/endpoints.ts';
import type { Id } from '#types/ids.ts';
import type { DaemonDefaults, MachineInfo } from './containers/create/defaults.ts';

/** An OCI runtime users may name with `--runtime`. */
export interface RuntimeSettings {
  /** OCI binary for the runc shim; undefined: the shim's default. */
  readonly path: string | undefined;
  readonly args: readonly string[];
  /** Shim type, e.g. io.containerd.runc.v2. */
  readonly shim: string;
}

/** Directories of one daemon. */
export class Paths {
  readonly dataRoot: string;
  readonly execRoot: string;

  constructor(dataRoot: string, execRoot: string) {
    this.dataRoot = dataRoot;
    this.execRoot = execRoot;
  }

  get database(): string {
    return join(this.dataRoot, 'gantry.db');
  }

  /** Durable files of one container: hosts, hostname, resolv.conf, its log. */
  container(id: Id): string {
    return join(this.dataRoot, 'containers', id);
  }

  /** Volatile files of one run: bundle, rootfs mount point, FIFOs. */
  bundle(id: Id): string {
    return join(this.execRoot, 'containers', id);
  }

  rootfs(id: Id): string {
    return join(this.bundle(id), 'rootfs');
  }

  /** FIFOs of the main process or of an exec. */
  streams(id: Id, execId?: Id): string {
    return join(this.bundle(id), 'streams', execId ?? 'init');
  }

  /** Where runc keeps its state for this daemon. */
  get runtimeRoot(): string {
    return join(this.execRoot, 'runtime');
  }
}

/** What the daemon was told to do. Reloadable fields are replaced as a whole on SIGHUP. */
export interface Settings {
  readonly paths: Paths;
  /** Stable ID of this daemon (`ID` of /info). */
  readonly daemonId: string;
  readonly hostName: string;
  /** Namespace given to shims. */
  readonly shimNamespace: string;
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
  readonly cgroupVersion: 1 | 2;
  /** Facts about this machine that specs and validation depend on. */
  readonly specHost: SpecHost;
  readonly machine: MachineInfo;
  /** Present or reloaded values; read at each use. */
  current(): ReloadableSettings;
}

export interface ReloadableSettings {
  /** Whether what docker calls experimental is allowed. */
  readonly experimental: boolean;
  readonly debug: boolean;
  readonly liveRestore: boolean;
  readonly shutdownTimeoutSeconds: number;
  readonly labels: readonly string[];
  readonly runtimes: Readonly<Record<string, RuntimeSettings>>;
  readonly insecureRegistries: readonly string[];
  readonly registryMirrors: readonly string[];
  /** Driver → options given to new networks (`--default-network-opt`). */
  readonly networkOptions: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** How registries are reached. */
  readonly registry: RegistryOptions;
  readonly downloads: { readonly maxDownloads: number; readonly maxAttempts: number };
  readonly maxConcurrentUploads: number;
  /** Values given to containers that name none. */
  readonly defaults: DaemonDefaults;
}

/**
 * The runtime of that name: a configured one, or a shim by its own name (`io.containerd.runsc.v1`), which needs no
 * configuration. Compat: a path to a shim's binary is none.
 */
export function findRuntime(
  { runtimes }: Pick<ReloadableSettings, 'runtimes'>,
  name: string,
): RuntimeSettings | undefined {
  if (Object.hasOwn(runtimes, name)) return runtimes[name];
  return isShimName(name) ? { path: undefined, args: [], shim: name } : undefined;
}

/** A name with a dot in it and no path. */
export function isShimName(name: string): boolean {
  return /^[^./][^/]*\.[^/]*$/.test(name);
}
