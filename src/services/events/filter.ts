/** Which events a filter lets through (moby's rules: values of one key are alternatives, keys all must match; labels all must match). */
import type { EngineEvent } from './events.ts';

/** Filter key → values. */
export type Filters = ReadonlyMap<string, readonly string[]>;

/** Object filters that match by ID prefix-free equality or by name, for events of their own type only. */
const OBJECT_TYPES: readonly string[] = [
  'config',
  'container',
  'daemon',
  'network',
  'node',
  'plugin',
  'secret',
  'service',
  'volume',
];

/** Whether `event` passes `filters`. */
export function matchesEvent(event: EngineEvent, filters: Filters): boolean {
  return (
    matchesOne(filters.get('event'), (value) => matchesAction(event.Action, value)) &&
    matchesOne(filters.get('type'), (value) => event.Type === value) &&
    matchesOne(filters.get('scope'), (value) => event.scope === value) &&
    OBJECT_TYPES.every((type) => matchesOne(filters.get(type), (value) => matchesObject(event, type, value))) &&
    matchesLabels(event, filters.get('label')) &&
    matchesOne(filters.get('image'), (value) => matchesImage(event, value))
  );
}

function matchesOne(values: readonly string[] | undefined, test: (value: string) => boolean): boolean {
  return values === undefined || values.length === 0 || values.some(test);
}

// Compat: `exec_create`, `exec_start` and `health_status` match actions that carry a suffix after a colon.
function matchesAction(action: string, wanted: string): boolean {
  if (action === wanted) return true;
  return (
    (wanted === 'exec_create' || wanted === 'exec_start' || wanted === 'health_status') &&
    action.startsWith(`${wanted}:`)
  );
}

function matchesObject(event: EngineEvent, type: string, wanted: string): boolean {
  if (event.Type === type) return sameObject(event, wanted);
  return false;
}

function sameObject(event: EngineEvent, wanted: string): boolean {
  const name = event.Actor.Attributes['name'];
  return event.Actor.ID === wanted || name === wanted || (wanted.length >= 4 && event.Actor.ID.startsWith(wanted));
}

function matchesLabels(event: EngineEvent, labels: readonly string[] | undefined): boolean {
  return (labels ?? []).every((label) => {
    const equals = label.indexOf('=');
    if (equals < 0) return Object.hasOwn(event.Actor.Attributes, label);
    return event.Actor.Attributes[label.slice(0, equals)] === label.slice(equals + 1);
  });
}

// Compat: an image filter also matches containers made from that image, with or without the tag.
function matchesImage(event: EngineEvent, wanted: string): boolean {
  const candidates =
    event.Type === 'image'
      ? [event.Actor.ID, event.Actor.Attributes['name']]
      : event.Type === 'container'
        ? [event.Actor.Attributes['image']]
        : [];
  return candidates.some((name) => name !== undefined && (name === wanted || withoutTag(name) === wanted));
}

function withoutTag(name: string): string {
  const colon = name.lastIndexOf(':');
  return colon > name.lastIndexOf('/') ? name.slice(0, colon) : name;
}
