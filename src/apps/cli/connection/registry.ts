/**
 * Registries asked by the CLI itself, for `manifest`: no daemon is involved, so certificates, proxies and what is
 * insecure come from this host's files, the environment and the command's flags.
 */
import type { RemoteRepository } from '#system/registry-http/contract.ts';
import { RemoteRegistryError } from '#system/registry-http/errors.ts';
import { GantryError } from '#types/errors.ts';
import type { Reference } from '#types/reference.ts';
import { type CredentialContext, findCredentials, HUB_KEY } from '../config/credentials.ts';
import { CLI_VERSION } from '../version.ts';

const CERTIFICATES = '/etc/docker/certs.d';

/** What is done with a repository. */
export interface RegistryWork<T> {
  readonly reference: Reference;
  /** Plain HTTP or unverified TLS is allowed. */
  readonly insecure: boolean;
  readonly writes: boolean;
  readonly work: (repository: RemoteRepository, signal: AbortSignal) => Promise<T>;
}

/** Whether an error says that the registry does not have, or does not show, what was asked for. */
export function isAbsent(error: unknown): boolean {
  if (!(error instanceof RemoteRegistryError)) return false;
  // Compat: a registry without TLS counts as one that has nothing, unless it is allowed.
  const isPlain = error.message.includes('server gave HTTP response to HTTPS client');
  // Compat: where there are no credentials to try, that is what is told.
  if (error.message.endsWith('no basic auth credentials')) return false;
  return isPlain || error.kind === 'notFound' || error.kind === 'unauthorized' || error.failure === 'unexpected';
}

function variable(name: string): string {
  return process.env[name] ?? process.env[name.toLowerCase()] ?? '';
}

/** Runs work on the repository of a reference with the user's credentials. */
export async function withRegistry<T>(context: CredentialContext, task: RegistryWork<T>): Promise<T> {
  const { reference } = task;
  const { HttpRegistryClient } = await import('#system/registry-http/client.ts');
  const stored = await findCredentials(context, reference.domain === 'docker.io' ? HUB_KEY : reference.domain);
  const client = new HttpRegistryClient({
    userAgent: `Gantry-Client/${CLI_VERSION} (linux)`,
    options: () => ({
      mirrors: [],
      insecure: task.insecure ? [reference.domain] : [],
      hosts: task.insecure ? {} : { [reference.domain]: { mirrors: [], verify: true } },
      certificatesDirectory: CERTIFICATES,
      proxies: { http: variable('HTTP_PROXY'), https: variable('HTTPS_PROXY'), no: variable('NO_PROXY') },
    }),
  });
  const access = {
    domain: reference.domain,
    path: reference.path,
    credentials: {
      username: stored.username ?? '',
      password: stored.password ?? '',
      identityToken: stored.identitytoken ?? '',
      registryToken: stored.registrytoken ?? '',
      serverAddress: stored.serveraddress ?? '',
    },
  };
  const controller = new AbortController();
  const stop = (): void => controller.abort(new GantryError('cancelled', 'context canceled'));
  process.once('SIGINT', stop).once('SIGTERM', stop);
  try {
    const work = (repository: RemoteRepository): Promise<T> => task.work(repository, controller.signal);
    return await (task.writes
      ? client.push(access, work, controller.signal)
      : client.pull(access, work, controller.signal));
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop);
  }
}
