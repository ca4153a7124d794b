/** What SIGHUP may change: the difference between two option sets, restricted to the reloadable ones. */
import type { DaemonOptions } from './daemon-options.ts';

/** Fields that dockerd re-reads. */
export type ReloadableField =
  | 'debug'
  | 'labels'
  | 'runtimes'
  | 'defaultRuntime'
  | 'defaultCgroupNamespace'
  | 'defaultIpcMode'
  | 'defaultShmSizeBytes'
  | 'insecureRegistries'
  | 'registryMirrors'
  | 'registryHosts'
  | 'registryCertificates'
  | 'liveRestore'
  | 'shutdownTimeoutSeconds'
  | 'maxConcurrentDownloads'
  | 'maxConcurrentUploads'
  | 'maxDownloadAttempts'
  | 'features';

const RELOADABLE: readonly ReloadableField[] = [
  'debug',
  'labels',
  'runtimes',
  'defaultRuntime',
  'defaultCgroupNamespace',
  'defaultIpcMode',
  'defaultShmSizeBytes',
  'insecureRegistries',
  'registryMirrors',
  'registryHosts',
  'registryCertificates',
  'liveRestore',
  'shutdownTimeoutSeconds',
  'maxConcurrentDownloads',
  'maxConcurrentUploads',
  'maxDownloadAttempts',
  'features',
];

export interface Reload {
  /** The old options with every reloadable field taken from the new ones. */
  readonly options: DaemonOptions;
  readonly changed: readonly ReloadableField[];
}

/** Takes the reloadable fields of `next` over; all others keep their value until a restart. */
export function reloadOptions(current: DaemonOptions, next: DaemonOptions): Reload {
  const changed = RELOADABLE.filter((field) => JSON.stringify(current[field]) !== JSON.stringify(next[field]));
  const updates = Object.fromEntries(changed.map((field) => [field, next[field]]));
  return { options: { ...current, ...updates }, changed };
}
