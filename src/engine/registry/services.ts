/** What the registry's use-cases work with, and what each call tells about its caller. */
import type { Access, Actor } from '#services/registry/access/access.ts';
import type { RepositoryName } from '#services/registry/contract.ts';
import type { EventAction, Notifier, RegistryEvent } from '#services/registry/notifications.ts';
import type { Quotas } from '#services/registry/quotas.ts';
import type { RegistryStore } from '#services/registry/store.ts';
import type { Uploads } from '#services/registry/uploads.ts';
import { isDiskFull } from '#system/database/database.ts';
import { DistributionError } from '#types/distribution-error.ts';
import type { UpstreamCache } from './upstream-cache.ts';

/** The assembled parts of one registry. */
export interface RegistryServices {
  readonly store: RegistryStore;
  readonly uploads: Uploads;
  readonly quotas: Quotas;
  readonly access: Access;
  readonly notifier: Notifier;
  /** Set: this registry is a cache of another. */
  readonly upstream: UpstreamCache | undefined;
  readonly isReadOnly: boolean;
}

/** One request, as far as a use-case needs to know. */
export interface Caller {
  readonly actor: Actor;
  readonly request: RegistryEvent['request'];
  /** Absolute URL of a path of this registry. */
  url(path: string): string;
}

/** Throws UNSUPPORTED where nothing may be written. */
export function requireWritable(services: RegistryServices): void {
  if (services.isReadOnly) throw new DistributionError('UNSUPPORTED', { message: 'the registry is read-only' });
  if (services.upstream !== undefined)
    throw new DistributionError('UNSUPPORTED', { message: 'the registry is a cache: push to its upstream' });
}

/** Tells the webhooks. */
export function publish(
  services: RegistryServices,
  caller: Caller,
  action: EventAction,
  target: { repository: RepositoryName } & RegistryEvent['target'],
): void {
  const length = target.size === undefined ? {} : { length: target.size };
  const actor = caller.actor.user === undefined ? {} : { name: caller.actor.user };
  services.notifier.publish({ action, target: { ...target, ...length }, request: caller.request, actor });
}

/** Whether a write failed because the disk is full. */
export function isOutOfSpace(error: unknown): boolean {
  return isDiskFull(error) || (error instanceof Error && 'code' in error && error.code === 'ENOSPC');
}
