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

/** `exec_create: cmd args`. Compat: the space after the program is there even without arguments. */
export function execAction(step: 'create' | 'start', command: readonly string[]): string {
  const [program = '', ...args] = command;
  return `exec_${step}: ${program} ${args.join(' ')}`;
}
