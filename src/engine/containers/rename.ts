/** Renames a container (`docker rename`). */
import { GantryError, wrapError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { parseContainerName } from './create/names.ts';
import { publishContainerEvent } from './events.ts';

/** Throws `invalid` for a bad or unchanged name, `conflict` for one in use. */
export async function renameContainer(
  services: Pick<Services, 'containers' | 'events'>,
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
  } catch (error) {
    throw wrapError('Error when allocating new name', error);
  }
  publishContainerEvent(services.events, container.record, 'rename', { oldName: `/${oldName}` });
}
