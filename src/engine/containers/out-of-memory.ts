/** Kills for lack of memory: the shim tells of them, the record and `docker events` show them. */
import { isId } from '#types/ids.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';

/** Marks containers in which the kernel killed a process; until disposed. */
export function watchOutOfMemory(services: Pick<Services, 'containers' | 'events' | 'shims'>): Disposable {
  return services.shims.subscribe((event) => {
    if (event.type !== 'oom' || !isId(event.containerId)) return;
    const container = services.containers.get(event.containerId);
    if (container === undefined) return;
    container.oomKilled = true;
    publishContainerEvent(services.events, container.record, 'oom');
  });
}
