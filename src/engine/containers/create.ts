/** Creates a container (`docker create`): checked, named, given its file system, mounts and record — all or nothing. */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { type ContainerRecord, NEVER_STARTED } from '#services/containers/container.ts';
import type { Image } from '#services/images/contract.ts';
import { now } from '#system/clock/clock.ts';
import { GantryError } from '#types/errors.ts';
import { type Id, newId } from '#types/ids.ts';
import { formatPlatform, hostPlatform, matchesPlatform, type Platform, parsePlatform } from '#types/platform.ts';
import type { ContainerCreateRequest, EndpointSettings, HostConfig } from '#wire/engine.ts';
import { imagePlatform, resolveForPlatform } from '../images/inspect.ts';
import type { Services } from '../services.ts';
import type { RequestVersion } from './create/adjust-version.ts';
import { parseContainerName, randomName } from './create/names.ts';
import { type CreateContext, checkRequest, normaliseRequest } from './create/normalise.ts';
import { addressMistakes } from './endpoint-request.ts';
import { publishContainerEvent } from './events.ts';
import { legacyLinks } from './links.ts';
import { makeMounts } from './mount-points.ts';
import { canonicalName } from './sandbox.ts';
import { makeWorkingDirectory } from './working-directory.ts';

export interface CreateOptions {
  /** Empty: a generated one. */
  readonly name: string;
  /** `os/arch[/variant]`; empty: any. */
  readonly platform: string;
  readonly request: ContainerCreateRequest;
  readonly version: RequestVersion;
}

/** Registers a new container; nothing remains when it fails. Throws docker's errors in docker's order. */
export async function createContainer(
  services: Services,
  options: CreateOptions,
): Promise<{ id: Id; warnings: string[] }> {
  const { request } = options;
  const context = contextOf(services, options.version);
  const wanted = options.platform === '' ? undefined : parsePlatform(options.platform);
  const checked = checkRequest(request, context);
  const image = resolveForPlatform(services.images, request.Image ?? '', wanted);
  const id = newId();
  const normalised = normaliseRequest(checked, image.config.config, {
    ...context,
    id,
    validateLog: (driver, logOptions) => services.logs.validate(driver, logOptions),
  });
  if (normalised.args.length === 0) throw new GantryError('invalid', 'no command specified');
  const name = options.name === '' ? freeName(services) : parseContainerName(options.name);
  using reservation = services.containers.reserveName(name, id);
  await using undo = new AsyncDisposableStack();

  await services.snapshots.prepare(id, image.topLayer, normalised.hostConfig.StorageOpt ?? {});
  undo.defer(() => services.snapshots.remove(id));
  mkdirSync(services.settings.paths.container(id), { recursive: true, mode: 0o710 });
  undo.defer(() => rmSync(services.settings.paths.container(id), { recursive: true, force: true }));
  const mounts = await makeMounts(services, { id, ...normalised });
  undo.defer(() => mounts[Symbol.asyncDispose]());

  const { WorkingDir: directory } = normalised.config;
  if (directory) await makeWorkingDirectory(services, id, directory);

  const record: ContainerRecord = {
    id,
    name,
    createdAt: now(),
    imageReference: request.Image ?? '',
    imageId: image.id,
    layer: image.topLayer,
    platform: imagePlatform(image),
    config: { ...normalised.config, Image: request.Image ?? '' },
    hostConfig: normalised.hostConfig,
    args: normalised.args,
    mounts: mounts.points,
    networks: wantedNetworks(services, normalised.hostConfig, checked.endpoints),
    ...(mounts.images.length > 0 ? { imageMounts: mounts.images } : {}),
    state: NEVER_STARTED,
    restartCount: 0,
    hasBeenManuallyStopped: false,
    hasBeenStartedBefore: false,
    ...(checked.readOnlyNonRecursive ? { nonRecursiveReadOnly: true } : {}),
    shimAddress: '',
    sandbox: undefined,
  };
  checkLinks(services, record);
  services.containers.add(record);
  reservation.keep();
  undo.move();
  publishContainerEvent(services.events, record, 'create');
  return { id, warnings: [...checked.warnings, ...platformWarning(image, wanted), ...checked.versionWarnings] };
}

function contextOf(services: Services, version: RequestVersion): CreateContext {
  const { settings, containers } = services;
  const { defaults, runtimes } = settings.current();
  return {
    version,
    defaults,
    machine: settings.machine,
    runtimes: Object.keys(runtimes),
    pathExists: existsSync,
    endpointMistakes: (network, endpoint) => {
      try {
        return addressMistakes(services.networks.describe(services.networks.find(network).id), endpoint);
      } catch {
        // Compat: the network may come later.
        return [];
      }
    },
    containerId: (reference) => {
      try {
        return containers.find(reference).id;
      } catch {
        return undefined;
      }
    },
  };
}

/** Settings by the networks' own names; without any, the network the mode names. */
function wantedNetworks(
  services: Services,
  hostConfig: HostConfig,
  endpoints: Readonly<Record<string, EndpointSettings>>,
): ContainerRecord['networks'] {
  const mode = hostConfig.NetworkMode ?? 'default';
  if (mode.startsWith('container:')) return {};
  const entries = Object.entries(endpoints);
  if (entries.length === 0) return { [canonicalName(services, mode === 'default' ? 'bridge' : mode)]: {} };
  return Object.fromEntries(entries.map(([name, settings]) => [canonicalName(services, name), settings]));
}

/** Compat: a link to a container that does not exist fails at create, to one that does not run at start. */
function checkLinks(services: Services, record: ContainerRecord): void {
  for (const text of legacyLinks(record)) {
    const [reference = ''] = text.split(':');
    try {
      services.containers.find(reference);
    } catch (error) {
      throw new GantryError('invalid', `could not get container for ${reference}: No such container: ${reference}`, {
        cause: error,
      });
    }
  }
}

function freeName(services: Services): string {
  for (let attempt = 0; ; attempt += 1) {
    const name = randomName(attempt);
    if (!services.containers.isNameTaken(name)) return name;
  }
}

function platformWarning(image: Image, wanted: Platform | undefined): string[] {
  const host = hostPlatform();
  const actual = imagePlatform(image);
  if (wanted !== undefined || matchesPlatform(host, actual)) return [];
  return [
    `The requested image's platform (${formatPlatform(actual)}) does not match the detected host platform (${formatPlatform(host)}) and no specific platform was requested`,
  ];
}
