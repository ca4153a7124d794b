/** Removes containers (`docker rm`, `--rm`, `container prune`). */
import { rmSync } from 'node:fs';
import { type ContainerState, isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import { errorMessage, GantryError, wrapError } from '#types/errors.ts';
import { SIGKILL } from '#types/signal.ts';
import type { Services } from '../services.ts';
import { publishContainerEvent } from './events.ts';
import { KILL_WAIT_MS, sendSignal } from './kill.ts';
import { settle } from './wait.ts';

/** A forced removal ends what runs at most this often; with the removal under way nothing restarts by itself. */
const REMOVAL_TURNS = 3;

export interface RemoveOptions {
  readonly force: boolean;
  readonly removeVolumes: boolean;
  /** Remove the link named `reference` instead of a container. */
  readonly link: boolean;
}

/** `docker rm`. Throws `conflict` when it runs (without force) or is being removed already. */
export async function removeContainer(services: Services, reference: string, options: RemoveOptions): Promise<void> {
  const container = services.containers.find(reference);
  if (options.link) return removeLink(container, reference);
  if (container.removalInProgress) {
    throw new GantryError('conflict', `removal of container ${reference} is already in progress`);
  }
  checkRemovable(container, reference, options.force);
  container.removalInProgress = true;
  try {
    // A restart already on its way cannot be called back: what it starts is ended in the next turn.
    for (let turn = 0; turn < REMOVAL_TURNS; turn += 1) {
      container.pendingRestart?.abort();
      if (isAlive(container.state)) await killForRemoval(services, container);
      using _held = await container.lock.acquire();
      // --rm may have removed it while we waited for our turn.
      if (services.containers.get(container.id) !== container) return;
      if (isAlive(container.state) && options.force) continue;
      if (isAlive(container.state)) throw stillRunning(container, reference);
      await removeHeld(services, container, { removeVolumes: options.removeVolumes });
      return;
    }
    throw stillRunning(container, reference);
  } finally {
    container.removalInProgress = false;
  }
}

// Compat: a link is named `/parent/alias`; the only name of a container itself cannot be unlinked.
function removeLink(container: LiveContainer, reference: string): never {
  const name = reference.startsWith('/') ? reference.slice(1) : reference;
  if (!name.includes('/') || name === container.record.name) {
    throw new GantryError('system', 'Conflict, cannot remove the default link name of the container');
  }
  throw new GantryError('notFound', `No such container: ${reference}`);
}

function checkRemovable(container: LiveContainer, reference: string, force: boolean): void {
  const { status } = container.state;
  if (force) return;
  if (status === 'paused') {
    throw new GantryError(
      'conflict',
      `cannot remove container "${reference}": container is paused and must be unpaused first`,
    );
  }
  if (status === 'running' || status === 'restarting') throw stillRunning(container, reference);
}

function stillRunning(container: LiveContainer, reference: string): GantryError {
  return new GantryError(
    'conflict',
    `cannot remove container "${reference}": container is ${container.state.status}: stop the container before removing or force remove`,
  );
}

async function killForRemoval(services: Services, container: LiveContainer): Promise<void> {
  try {
    await sendSignal(services, container, SIGKILL);
  } catch (error) {
    if (!(error instanceof GantryError && error.kind === 'conflict')) {
      throw wrapError(`cannot remove container "${container.record.name}": could not kill container`, error);
    }
  }
  if (!(await settle(container, AbortSignal.timeout(KILL_WAIT_MS)))) {
    throw new GantryError(
      'conflict',
      `cannot remove container "${container.record.name}": could not kill: tried to kill container, but did not receive an exit event`,
    );
  }
}

/** Removes a stopped container while its lock is held. Files are deleted before the record: a crash in between leaves a record to remove again. */
export async function removeHeld(
  services: Services,
  container: LiveContainer,
  options: { readonly removeVolumes: boolean },
): Promise<void> {
  const { id, state } = container;
  const exitCode = isAlive(state) ? 0 : state.exitCode;
  if (!isAlive(state)) noteState(container, { ...state, status: 'removing' });
  try {
    await services.snapshots.remove(id);
    for (const { snapshot } of container.record.imageMounts ?? []) await services.snapshots.remove(snapshot);
    rmSync(services.settings.paths.container(id), { recursive: true, force: true });
  } catch (error) {
    if (!isAlive(state)) noteState(container, { ...state, status: 'dead', error: errorMessage(error) });
    container.notifyRemoved({ exitCode, error: errorMessage(error) });
    throw wrapError(`unable to remove filesystem for ${id}`, error);
  }
  services.containers.remove(container);
  await releaseLayers(services, container);
  await releaseReferences(services, container, options.removeVolumes);
  await container.streams?.[Symbol.asyncDispose]();
  publishContainerEvent(services.events, container.record, 'destroy');
  container.notifyRemoved({ exitCode, error: '' });
}

/** The layers of an image that was removed while this container used it. */
async function releaseLayers(services: Services, container: LiveContainer): Promise<void> {
  const { layer, imageId } = container.record;
  if (layer === undefined || services.images.get(imageId) !== undefined) return;
  await services.images.collection.releaseLayer(layer).catch((error: unknown) => {
    services.logger.warn('layers of a removed image stay', { image: imageId, error: errorMessage(error) });
  });
}

/** Removing is what makes room on a full disk, so it goes on without a saved state. */
function noteState(container: LiveContainer, state: ContainerState): void {
  try {
    container.update({ state });
  } catch {
    container.updateUnsaved({ state });
  }
}

/** Drops the container's hold on its volumes; anonymous ones that nobody else uses go with it when asked. */
async function releaseReferences(
  services: Services,
  container: LiveContainer,
  removeAnonymous: boolean,
): Promise<void> {
  services.volumes.release(container.id);
  if (!removeAnonymous) return;
  for (const { Type, Name } of container.record.mounts) {
    if (Type !== 'volume' || !Name || !services.volumes.isAnonymous(Name)) continue;
    if (services.volumes.references(Name).length > 0) continue;
    try {
      await services.volumes.remove(Name);
      services.events.publish('volume', 'destroy', Name, { driver: 'local' });
    } catch (error) {
      services.logger.warn('anonymous volume stays', { volume: Name, error: errorMessage(error) });
    }
  }
}
