/** Files in and out of a container (`docker cp`, `docker export`), running or stopped. */
import { mkdirSync } from 'node:fs';
import { posix } from 'node:path';
import type { Readable } from 'node:stream';
import type { PathStat, RootView, ViewMount } from '#services/archive/contract.ts';
import { type ContainerRecord, isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { GantryError } from '#types/errors.ts';
import type { Services } from '../services.ts';
import { removeBundle } from './bundle.ts';
import { publishContainerEvent } from './events.ts';

/** A stream whose source stays open until disposed. */
export interface OpenStream extends AsyncDisposable {
  readonly stream: Readable;
}

/** `HEAD /containers/{id}/archive`. */
export async function archiveStat(services: Services, reference: string, path: string): Promise<PathStat> {
  const container = services.containers.find(reference);
  await using root = await openRoot(services, container);
  return services.archives.stat({ root: root.view, path, containerName: reference });
}

/** `GET /containers/{id}/archive`: the path's stat and its content as an archive. */
export async function readArchive(
  services: Services,
  reference: string,
  path: string,
): Promise<OpenStream & { readonly stat: PathStat }> {
  const container = services.containers.find(reference);
  await using undo = new AsyncDisposableStack();
  const root = undo.use(await openRoot(services, container));
  const { stat, archive } = services.archives.get({ root: root.view, path, containerName: reference });
  publishContainerEvent(services.events, container.record, 'archive-path');
  const kept = undo.move();
  return { stat, stream: archive, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

export interface WriteArchiveOptions {
  readonly path: string;
  readonly noOverwriteDirNonDir: boolean;
  /** `copyUIDGID`: everything belongs to the container's user, if it has one. */
  readonly copyOwner: boolean;
  readonly source: AsyncIterable<Buffer>;
}

/** `PUT /containers/{id}/archive`. Throws docker's refusals for read-only targets. */
export async function writeArchive(
  services: Services,
  reference: string,
  options: WriteArchiveOptions,
  signal: AbortSignal,
): Promise<void> {
  const container = services.containers.find(reference);
  await using root = await openRoot(services, container);
  checkWritable(container.record, options.path);
  await services.archives.put(
    { root: root.view, path: options.path, containerName: reference },
    options.source,
    {
      noOverwriteDirNonDir: options.noOverwriteDirNonDir,
      ...ownerOf(container.record, options.copyOwner),
    },
    signal,
  );
  publishContainerEvent(services.events, container.record, 'extract-to-dir');
}

/** `GET /containers/{id}/export`: the root file system without volumes. */
export async function exportContainer(services: Services, reference: string): Promise<OpenStream> {
  const container = services.containers.find(reference);
  const { status } = container.state;
  if (status === 'dead' || status === 'removing') {
    const word = status === 'dead' ? 'Dead' : 'being removed';
    throw new GantryError('conflict', `You cannot export container ${container.id} which is ${word}`);
  }
  await using undo = new AsyncDisposableStack();
  const held = undo.use(await mountRoot(services, container));
  const view = undo.use(await services.archives.openStopped(held.path, []));
  const stream = services.archives.export(view);
  publishContainerEvent(services.events, container.record, 'export');
  const kept = undo.move();
  return { stream, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** What the container's processes see, or would see: volumes included. */
async function openRoot(
  services: Services,
  container: LiveContainer,
): Promise<{ readonly view: RootView } & AsyncDisposable> {
  const { state, record } = container;
  if (isAlive(state)) {
    const view = services.archives.openRunning(state.pid);
    try {
      await requireSameProcess(container, state.pid);
    } catch (error) {
      view[Symbol.dispose]();
      throw error;
    }
    return { view, [Symbol.asyncDispose]: async () => view[Symbol.dispose]() };
  }
  await using undo = new AsyncDisposableStack();
  const held = undo.use(await mountRoot(services, container));
  const mounts: ViewMount[] = [];
  for (const point of record.mounts) {
    if (point.Type === 'bind') {
      mounts.push({ source: point.Source ?? '', target: point.Destination ?? '', readOnly: point.RW === false });
    } else if (point.Type === 'volume' && point.Name) {
      const name = point.Name;
      const source = await services.volumes.mount(name, record.id);
      undo.defer(() => services.volumes.unmount(name, record.id));
      mounts.push({ source, target: point.Destination ?? '', readOnly: point.RW === false });
    }
  }
  const view = undo.use(await services.archives.openStopped(held.path, mounts));
  const kept = undo.move();
  return { view, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/**
 * The number may belong to another process of the host by now. The root is open already, so when the shim still has
 * its process under that number afterwards, it was the container's when it was opened.
 */
async function requireSameProcess(container: LiveContainer, pid: number): Promise<void> {
  const found = await container.task?.shim.state(container.id);
  if (found === undefined || found.status === 'stopped' || found.pid !== pid) {
    throw new GantryError('conflict', `container ${container.id} is not running`);
  }
}

/** The root mounted on the host. A stopped container's lock is held meanwhile, so that no start comes in between. */
async function mountRoot(
  services: Services,
  container: LiveContainer,
): Promise<{ readonly path: string } & AsyncDisposable> {
  const { paths } = services.settings;
  const path = paths.rootfs(container.id);
  if (isAlive(container.state)) return { path, [Symbol.asyncDispose]: async () => undefined };
  await using undo = new AsyncDisposableStack();
  undo.use(await container.lock.acquire());
  if (isAlive(container.state)) return { path, [Symbol.asyncDispose]: async () => undefined };
  if (services.containers.get(container.id) !== container) {
    throw new GantryError('notFound', `No such container: ${container.id}`);
  }
  mkdirSync(path, { recursive: true, mode: 0o711 });
  undo.defer(() => removeBundle(paths, container.id));
  await services.snapshots.mount(container.id, path);
  undo.defer(() => services.snapshots.unmount(container.id, path));
  const kept = undo.move();
  return { path, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** The kernel refuses writes to read-only mounts anyway; this says it in docker's words, and covers stopped containers. */
function checkWritable(record: ContainerRecord, path: string): void {
  const target = posix.normalize(`/${path}`);
  const mount = record.mounts
    .filter(({ Destination = '' }) => target === Destination || target.startsWith(`${Destination}/`))
    .sort((a, b) => (b.Destination?.length ?? 0) - (a.Destination?.length ?? 0))[0];
  if (mount?.RW === false) throw new GantryError('invalid', 'mounted volume is marked read-only');
  if (mount === undefined && record.hostConfig.ReadonlyRootfs === true) {
    throw new GantryError('invalid', 'container rootfs is marked read-only');
  }
}

/**
 * Compat: without a user of its own the container changes nothing; and only numeric users count here, as a name would
 * have to be looked up in a file system we must not trust for it.
 */
function ownerOf(record: ContainerRecord, isWanted: boolean): { readonly owner?: { uid: number; gid: number } } {
  const user = record.config.User ?? '';
  if (!isWanted || user === '') return {};
  const match = /^(\d+)(?::(\d+))?$/.exec(user);
  return { owner: { uid: Number(match?.[1] ?? 0), gid: Number(match?.[2] ?? 0) } };
}
