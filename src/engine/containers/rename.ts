/** Renames a container (`docker rename`). */
import type { LiveContainer } from '#services/containers/live.ts';
import { GantryError, wrapError } from '#types/errors.ts';
import type { EndpointSettings } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import { parseContainerName } from './create/names.ts';
import { isUserDefined } from './create/validate.ts';
import { dnsNames } from './endpoint-request.ts';
import { publishContainerEvent } from './events.ts';

/** Throws `invalid` for a bad or unchanged name, `conflict` for one in use. */
export async function renameContainer(
  services: Pick<Services, 'containers' | 'events' | 'networks'>,
  reference: string,
  newName: string,
): Promise<void> {
  if (newName === '' || reference === '') throw new GantryError('invalid', 'Neither old nor new names may be empty');
  const container = services.containers.find(reference);
  using _held = await container.lock.acquire();
  const oldName = container.record.name;
  const name = newName.startsWith('/') ? newName.slice(1) : newName;
  if (name === oldName) throw new GantryError('invalid', 'Renaming a container with the same name as its current name');
  try {
    // Compat: the daemon puts the slash in front before it checks, so its message shows one.
    parseContainerName(`/${name}`);
    using reservation = services.containers.reserveName(name, container.id);
    services.containers.rename(container, name);
    reservation.keep();
    renameEndpoints(services, container);
  } catch (error) {
    throw wrapError('Error when allocating new name', error);
  }
  publishContainerEvent(services.events, container.record, 'rename', { oldName: `/${oldName}` });
}

/** The resolver answers to the new name at once. */
function renameEndpoints(services: Pick<Services, 'networks'>, container: LiveContainer): void {
  const { record } = container;
  const named = (name: string, settings: EndpointSettings): EndpointSettings =>
    isUserDefined(name) && settings.DNSNames != null
      ? { ...settings, DNSNames: dnsNames(record, settings.Aliases ?? []) }
      : settings;
  const networks = Object.fromEntries(
    Object.entries(record.networks).map(([name, settings]) => [name, named(name, settings)]),
  );
  container.update({ networks });
  services.networks.rename(record.id, record.name, (networkId) => {
    const settings = Object.values(networks).find(({ NetworkID }) => NetworkID === networkId);
    return settings?.DNSNames ?? [];
  });
}
