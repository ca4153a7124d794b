/** `GET /containers/json`: which containers a filter selects, newest first, and how each is summed up. */
import type { ContainerRecord } from '#services/containers/container.ts';
import { isAlive, labelsOf } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { listedPorts, parseNatPort } from '#services/networks/ports.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { LinearRegExp } from '#types/linear-regexp.ts';
import type { ContainerSummary } from '#wire/engine.ts';
import type { Services } from '../services.ts';
import { attachedNetworks, describeState, sizes } from './inspect.ts';
import { parseLink } from './links.ts';

/** Keys the `filters` parameter accepts. Compat: `isolation` selects nothing on Linux, whatever its value. */
export const CONTAINER_FILTER_KEYS: readonly string[] = [
  'ancestor',
  'before',
  'exited',
  'expose',
  'health',
  'id',
  'is-task',
  'isolation',
  'label',
  'name',
  'network',
  'publish',
  'since',
  'status',
  'volume',
];

// In the order docker's message names them.
const STATES: readonly string[] = ['created', 'running', 'paused', 'restarting', 'removing', 'exited', 'dead'];
const HEALTH: readonly string[] = ['none', 'starting', 'healthy', 'unhealthy'];

export interface ListOptions {
  readonly all: boolean;
  /** Last n created; 0: no limit. */
  readonly limit: number;
  readonly size: boolean;
  readonly since: string;
  readonly before: string;
  readonly filters: ReadonlyMap<string, readonly string[]>;
}

/** Lists containers. Throws `invalid` for bad filter values. */
export async function listContainers(services: Services, options: ListOptions): Promise<ContainerSummary[]> {
  const selected = selectContainers(services, options);
  const nowMs = Date.now();
  const summaries: ContainerSummary[] = [];
  for (const container of selected) summaries.push(await summarise(services, container, options.size, nowMs));
  return summaries;
}

function selectContainers(services: Services, options: ListOptions): LiveContainer[] {
  const { filters } = options;
  const tests = compileFilters(services, options);
  // Compat: a status or exited filter looks at stopped containers too, and a limit implies all.
  const all =
    options.all ||
    options.limit > 0 ||
    filters.has('status') ||
    filters.has('exited') ||
    filters.has('since') ||
    filters.has('before');
  const selected: LiveContainer[] = [];
  for (const container of services.containers.all()) {
    const { status } = container.state;
    if (!all && !isAlive(container.state) && status !== 'restarting') continue;
    if (!tests.every((test) => test(container))) continue;
    selected.push(container);
    if (options.limit > 0 && selected.length === options.limit) break;
  }
  return selected;
}

type Test = (container: LiveContainer) => boolean;

function compileFilters(services: Services, options: ListOptions): Test[] {
  const { filters } = options;
  const tests: Test[] = [];
  const add = (key: string, make: (values: readonly string[]) => Test): void => {
    const values = filters.get(key);
    if (values !== undefined && values.length > 0) tests.push(make(values));
  };
  add('id', (values) => (container) => values.some((value) => patternMatches(container.id, value)));
  add(
    'name',
    (values) => (container) =>
      values.some(
        (value) => patternMatches(container.record.name, value) || patternMatches(`/${container.record.name}`, value),
      ),
  );
  add('label', (values) => (container) => matchesLabels(labelsOf(container.record), values));
  add('status', (values) => statusTest(values));
  add('exited', (values) => exitedTest(values));
  add('health', (values) => healthTest(values));
  add('ancestor', (values) => ancestorTest(services, values));
  add(
    'volume',
    (values) => (container) =>
      values.some((value) =>
        container.record.mounts.some(
          (mount) => mount.Name === value || mount.Destination === value || mount.Source === value,
        ),
      ),
  );
  add('network', (values) => (container) => values.some((value) => inNetwork(services, container.record, value)));
  add('publish', (values) =>
    portTest('publish', values, (container) =>
      (container.record.sandbox?.endpoints ?? []).flatMap((e) => e.ports.map((p) => `${p.hostPort}/${p.protocol}`)),
    ),
  );
  add('expose', (values) =>
    portTest('expose', values, (container) => Object.keys(container.record.config.ExposedPorts ?? {})),
  );
  add(
    'is-task',
    (values) => (container) =>
      values.some((value) => isTrue('is-task', value) === 'com.docker.swarm.task.id' in labelsOf(container.record)),
  );
  const since = options.since || filters.get('since')?.at(-1);
  const before = options.before || filters.get('before')?.at(-1);
  if (since) {
    const edge = services.containers.find(since).record.createdAt;
    tests.push((container) => container.record.createdAt > edge);
  }
  if (before) {
    const edge = services.containers.find(before).record.createdAt;
    tests.push((container) => container.record.createdAt < edge);
  }
  return tests;
}

/** Docker matches `id` and `name` filters as regular expressions, and literally when they are none. */
function patternMatches(text: string, pattern: string): boolean {
  if (text === pattern) return true;
  try {
    return new LinearRegExp(pattern).test(text);
  } catch {
    return false;
  }
}

/** `key` or `key=value`; all must hold. */
export function matchesLabels(labels: Readonly<Record<string, string>>, wanted: readonly string[]): boolean {
  return wanted.every((label) => {
    const equals = label.indexOf('=');
    return equals < 0 ? Object.hasOwn(labels, label) : labels[label.slice(0, equals)] === label.slice(equals + 1);
  });
}

function statusTest(values: readonly string[]): Test {
  for (const value of values) {
    if (!STATES.includes(value)) {
      throw new GantryError(
        'invalid',
        `invalid filter 'status=${value}': invalid value for state (${value}): must be one of ${STATES.join(', ')}`,
      );
    }
  }
  return (container) => values.includes(container.state.status);
}

function exitedTest(values: readonly string[]): Test {
  const codes = values.map((value) => {
    if (!/^[+-]?\d+$/.test(value)) {
      throw new GantryError(
        'invalid',
        `invalid filter 'exited=${value}': strconv.Atoi: parsing "${value}": invalid syntax`,
      );
    }
    return Number(value);
  });
  return ({ state }) => state.status === 'exited' && codes.includes(state.exitCode);
}

function healthTest(values: readonly string[]): Test {
  for (const value of values) {
    if (!HEALTH.includes(value)) {
      throw new GantryError(
        'invalid',
        `invalid filter 'health=${value}': invalid value for health (${value}): must be one of ${HEALTH.join(', ')}`,
      );
    }
  }
  return (container) => values.includes(container.health?.status ?? 'none');
}

function ancestorTest(services: Services, values: readonly string[]): Test {
  const tops = new Set<string>();
  const ids = new Set<string>();
  for (const value of values) {
    try {
      const image = services.images.resolve(value);
      ids.add(image.id);
      if (image.topLayer !== undefined) tops.add(image.topLayer);
    } catch {
      // Compat: an unknown ancestor selects nothing instead of failing.
    }
  }
  return ({ record }) => {
    if (ids.has(record.imageId)) return true;
    let parent = services.images.get(record.imageId)?.parent;
    while (parent !== undefined) {
      if (ids.has(parent)) return true;
      parent = services.images.get(parent)?.parent;
    }
    return record.layer !== undefined && [...ids].length > 0 && tops.has(record.layer) && ids.has(record.imageId);
  };
}

function inNetwork(services: Services, record: ContainerRecord, wanted: string): boolean {
  const names = Object.keys(attachedNetworks(record, record.sandbox?.endpoints ?? []));
  if (names.includes(wanted)) return true;
  try {
    return names.includes(services.networks.find(wanted).name);
  } catch {
    return false;
  }
}

/** Ranges are compared as such: a filter may name all ports, many times over. Exported for tests. */
export function portTest<T>(
  key: 'publish' | 'expose',
  values: readonly string[],
  portsOf: (container: T) => string[],
): (container: T) => boolean {
  const wanted = values.map((value) => {
    try {
      return parseNatPort(value);
    } catch (error) {
      // Compat: docker's answer is 500, not 400.
      throw new GantryError('system', `error while looking up for ${key} ${value}: ${portReason(value, error)}`, {
        cause: error,
      });
    }
  });
  return (container) =>
    portsOf(container).some((text) => {
      const port = parseNatPort(text);
      return wanted.some(
        ({ first, last, protocol }) => protocol === port.protocol && port.first >= first && port.last <= last,
      );
    });
}

/** Go's text for the part that is no number. */
function portReason(value: string, error: unknown): string {
  const wrong = (value.split('/')[0] ?? '').split('-').find((part) => !/^\d+$/.test(part));
  return wrong === undefined ? errorMessage(error) : `strconv.ParseUint: parsing "${wrong}": invalid syntax`;
}

function isTrue(key: string, value: string): boolean {
  if (value === 'true' || value === '1') return true;
  if (value === 'false' || value === '0') return false;
  throw new GantryError('invalid', `invalid filter '${key}=[${value}]'`);
}

async function summarise(
  services: Services,
  container: LiveContainer,
  size: boolean,
  nowMs: number,
): Promise<ContainerSummary> {
  const { record } = container;
  const endpoints = record.sandbox?.endpoints ?? [];
  return {
    Id: record.id,
    Names: [...linkNames(services, record), `/${record.name}`],
    Image: imageName(services, record),
    ImageID: record.imageId,
    Command: record.args.map(quoteWhenSpaced).join(' '),
    Created: Math.floor(Date.parse(record.createdAt) / 1000),
    Ports: listedPorts(
      record.config.ExposedPorts ?? {},
      endpoints.flatMap((endpoint) => endpoint.ports),
      isAlive(container.state) && record.sandbox !== undefined,
    ),
    ...(size ? nonZero(await sizes(services, record)) : {}),
    Labels: labelsOf(record),
    ...describeState(container, nowMs),
    HostConfig: {
      NetworkMode: record.hostConfig.NetworkMode ?? 'default',
      ...(Object.keys(record.hostConfig.Annotations ?? {}).length > 0
        ? { Annotations: record.hostConfig.Annotations }
        : {}),
    },
    NetworkSettings: { Networks: attachedNetworks(record, endpoints) },
    Mounts: [...record.mounts],
  } as ContainerSummary;
}

/** `/parent/alias` of each container that links to this one. */
function linkNames(services: Services, record: ContainerRecord): string[] {
  return services.containers.all().flatMap(({ record: parent }) =>
    (parent.hostConfig.Links ?? []).flatMap((text) => {
      const [reference, alias] = parseLink(text);
      return reference === record.name || reference === record.id ? [`/${parent.name}/${alias}`] : [];
    }),
  );
}

/** Compat: a size of nothing is left out of a list. */
function nonZero(sizes: object): object {
  return Object.fromEntries(Object.entries(sizes).filter(([, bytes]) => bytes !== 0));
}

/** The name the user gave while it still means this image; else the image's ID. */
function imageName(services: Services, record: ContainerRecord): string {
  try {
    if (services.images.resolve(record.imageReference).id === record.imageId) return record.imageReference;
  } catch {
    // Untagged since.
  }
  return record.imageId;
}

function quoteWhenSpaced(argument: string): string {
  return argument.includes(' ') ? `'${argument}'` : argument;
}
