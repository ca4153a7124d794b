/** Gives a container on user-defined networks the embedded resolver, with a view of its networks at each query. */
import type { ContainerRecord } from '#services/containers/container.ts';
import type { Services } from '../services.ts';
import { dnsOf } from './name-files.ts';

/** Serves the sandbox from now on. Attaching again replaces what was there. */
export async function attachResolver(
  services: Pick<Services, 'networks' | 'resolver' | 'settings'>,
  record: ContainerRecord,
  sandboxPath: string,
): Promise<void> {
  const { upstreams, ndotsSet } = services.networks.resolverSettings(dnsOf(services, record));
  await services.resolver?.attach(sandboxPath, record.id, () => ({
    ...services.networks.resolverNetworks(record.id),
    upstreams,
    ndotsSet,
  }));
}
