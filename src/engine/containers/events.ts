/** Container events: attributes docker attaches to each (name, image, all labels). */
import { type ContainerRecord, labelsOf } from '#services/containers/container.ts';
import type { EventPublisher } from '#services/events/events.ts';

/** Publishes `action` of a container. */
export function publishContainerEvent(
  events: EventPublisher,
  record: ContainerRecord,
  action: string,
  attributes: Readonly<Record<string, string>> = {},
): void {
  events.publish('container', action, record.id, {
    ...labelsOf(record),
    image: record.imageReference,
    name: record.name,
    ...attributes,
  });
}
