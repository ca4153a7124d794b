/** The route table: every operation this daemon answers, and 501 by name for the rest of the Engine API. */
import { buildContainers } from '#engine/build/run-container.ts';
import { withCommittedContainer } from '#engine/containers/commit.ts';
import { imageUses } from '#engine/containers/image-uses.ts';
import type { Services } from '#engine/services.ts';
import type { InfoSources } from '#engine/system/info.ts';
import { tarCodec } from '#services/images/tar-codec.ts';
import { notBuilt } from './http/not-built.ts';
import type { Route } from './http/route.ts';
import { buildRoutes } from './routes/build.ts';
import { containerFileRoutes } from './routes/container-files.ts';
import { containerStreamRoutes } from './routes/container-streams.ts';
import { containerRoutes } from './routes/containers.ts';
import { execRoutes } from './routes/exec.ts';
import { fsckRoutes } from './routes/fsck.ts';
import { commitRoutes, imageRoutes } from './routes/images.ts';
import { networkRoutes } from './routes/networks.ts';
import { pluginRoutes } from './routes/plugins.ts';
import { pullHandler, registryRoutes } from './routes/registry.ts';
import { systemRoutes } from './routes/system.ts';
import { volumeRoutes } from './routes/volumes.ts';

/** Classic builder; BuildKit would be 2. */
const BUILDER_VERSION = '1';

/** All routes. */
export function apiRoutes(services: Services, info: InfoSources): Route[] {
  const { images, events, containers } = services;
  const emit = events.publish.bind(events);
  const { registries, registryRecords: records, settings } = services;
  const limits = (): { maxDownloads: number; maxAttempts: number } => settings.current().downloads;
  const pull = { images, tar: tarCodec, records, registries, limits, emit };
  const uploads = (): number => settings.current().maxConcurrentUploads;
  const routes = [
    ...containerRoutes(services),
    ...containerStreamRoutes(services),
    ...containerFileRoutes(services),
    ...execRoutes(services),
    ...imageRoutes({
      images,
      tar: tarCodec,
      emit,
      uses: () => imageUses(containers),
      records,
      pull: pullHandler(pull),
    }),
    ...registryRoutes({ pull, push: { images, records, registries, uploads, emit } }),
    ...commitRoutes({
      images,
      emit,
      withContainer: (reference, options, work) => withCommittedContainer(services, { reference, ...options }, work),
    }),
    ...buildRoutes({
      images,
      tar: tarCodec,
      emit,
      pull,
      isExperimental: () => settings.current().experimental,
      createContainer: buildContainers(services),
    }),
    ...networkRoutes(services),
    ...volumeRoutes(services),
    ...pluginRoutes(),
    ...systemRoutes(services, { builderVersion: BUILDER_VERSION, info }),
    ...fsckRoutes({ images, containers, emit, registries, records, paths: services.settings.paths }),
  ];
  return [...routes, ...notBuilt(routes)];
}
