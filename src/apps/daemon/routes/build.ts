/** `POST /build` with the classic builder; BuildKit (`version=2`) answers 501 by name. */
import type { PullBase } from '#engine/build/base-image.ts';
import { type BuildContext, type BuildOptions, buildImage } from '#engine/build/build.ts';
import { applyIgnore, type EntryTree, readContext, readText } from '#engine/build/context.ts';
import { type PullContext, pullImage } from '#engine/images/pull.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { cleanRelative } from '#types/path.ts';
import { parsePlatform } from '#types/platform.ts';
import { parseReference, type Reference, withDefaultTag } from '#types/reference.ts';
import { bodyBytes } from '../http/body.ts';
import { registryConfig } from '../http/credentials.ts';
import type { Handler, Query, Route } from '../http/route.ts';
import { streaming } from './images.ts';

export interface BuildRouteDependencies extends Omit<BuildContext, 'write' | 'pull'> {
  readonly pull: PullContext;
  /** Whether `--squash` is allowed. */
  readonly isExperimental: () => boolean;
}

/** Bytes of a Dockerfile or ignore file. */
const DOCKERFILE_LIMIT_BYTES = 4 * 1024 * 1024;

function json<T>(query: Query, name: string, empty: T): T {
  const text = query.text(name);
  if (text === '') return empty;
  try {
    return (JSON.parse(text) as T | null) ?? empty;
  } catch (error) {
    const what = name === 'buildargs' ? 'error reading build args' : `error reading ${name}`;
    throw new GantryError('invalid', `${what}: ${errorMessage(error)}`, { cause: error });
  }
}

function stringMap<V extends string | null>(
  value: Readonly<Record<string, V>>,
  name: string,
): Readonly<Record<string, V>> {
  if (
    typeof value !== 'object' ||
    Array.isArray(value) ||
    !Object.values(value).every((entry) => entry === null || typeof entry === 'string')
  ) {
    throw new GantryError(
      'invalid',
      `error reading ${name}: json: cannot unmarshal into Go value of type map[string]string`,
    );
  }
  return value;
}

function references(names: readonly string[]): Reference[] {
  const found = new Map<string, Reference>();
  for (const name of names) {
    if (name === '') continue;
    const reference = withDefaultTag(parseReference(name));
    if (reference.digest !== undefined) throw new GantryError('invalid', 'build tag cannot contain a digest');
    found.set(name, reference);
  }
  return [...found.values()];
}

/** HostConfig fields of RUN containers. */
function resources(query: Query): BuildOptions['resources'] {
  return {
    Memory: query.integer('memory'),
    MemorySwap: query.integer('memswap'),
    CpuShares: query.integer('cpushares'),
    CpuPeriod: query.integer('cpuperiod'),
    CpuQuota: query.integer('cpuquota'),
    CpusetCpus: query.text('cpusetcpus'),
    CpusetMems: query.text('cpusetmems'),
    CgroupParent: query.text('cgroupparent'),
    ShmSize: query.integer('shmsize'),
    NetworkMode: query.text('networkmode') || 'default',
    ExtraHosts: query.text('extrahosts') === '' ? [] : query.text('extrahosts').split(','),
    SecurityOpt: json<string[]>(query, 'securityopt', []),
    Ulimits: json<object[]>(query, 'ulimits', []),
  };
}

async function withDockerfile(
  tree: EntryTree,
  written: string,
): Promise<Pick<BuildOptions, 'dockerfile' | 'dockerfileName'> & { files: EntryTree }> {
  const path = cleanRelative(written === '' ? 'Dockerfile' : written);
  const file = tree.get(path) ?? (written === '' ? tree.get('dockerfile') : undefined);
  if (file === undefined || file.entry.type !== 'file')
    throw new GantryError('system', `Cannot locate specified Dockerfile: ${path}`);
  if (file.entry.sizeBytes === 0) throw new GantryError('invalid', `the Dockerfile (${path}) cannot be empty`);
  const ignore = tree.get(`${path}.dockerignore`) ?? tree.get('.dockerignore');
  const files = ignore === undefined ? tree : applyIgnore(tree, await readText(ignore, DOCKERFILE_LIMIT_BYTES));
  return { dockerfile: await readText(file, DOCKERFILE_LIMIT_BYTES), dockerfileName: path, files };
}

/** The build routes. */
export function buildRoutes(dependencies: BuildRouteDependencies): Route[] {
  const build: Handler = async (context) => {
    const { query } = context;
    const version = query.text('version');
    if (version === '2')
      throw new GantryError('notImplemented', 'BuildKit is not implemented yet; build with DOCKER_BUILDKIT=0');
    if (version !== '' && version !== '1') throw new GantryError('invalid', `invalid version "${version}"`);
    const isolation = query.text('isolation');
    if (isolation !== '' && isolation.toLowerCase() !== 'default')
      throw new GantryError('invalid', `unsupported isolation: "${isolation}"`);
    const squash = query.flag('squash');
    if (squash && !dependencies.isExperimental())
      throw new GantryError('invalid', 'squash is only supported with experimental mode');
    for (const name of ['remote', 'outputs']) {
      if (query.text(name) !== '')
        throw new GantryError('notImplemented', `ImageBuild with ${name} is not implemented yet`);
    }
    if (json<string[]>(query, 'cachefrom', []).length > 0)
      throw new GantryError('notImplemented', 'ImageBuild with cachefrom is not implemented yet');
    const platform = query.text('platform') === '' ? undefined : parsePlatform(query.text('platform'));
    const options = {
      tags: references(query.all('t')),
      arguments: stringMap(json<Record<string, string | null>>(query, 'buildargs', {}), 'build args'),
      labels: stringMap(json<Record<string, string>>(query, 'labels', {}), 'labels'),
      target: query.text('target'),
      noCache: query.flag('nocache'),
      pull: query.flag('pull'),
      remove: query.flag('rm', true),
      forceRemove: query.flag('forcerm'),
      quiet: query.flag('q'),
      squash,
      resources: resources(query),
      ...(platform === undefined ? {} : { platform }),
    };
    await streaming(context, async (write) => {
      const { images, tar } = dependencies;
      using lease = images.content.lease();
      try {
        const tree = await readContext(
          bodyBytes(context.request),
          { content: images.content, tar, lease },
          context.signal,
        );
        const parts = await withDockerfile(tree, query.text('dockerfile'));
        const credentialsFor = registryConfig(context.request);
        const pull: PullBase = (reference, { platform: wanted, write: tell }, signal) =>
          pullImage(
            dependencies.pull,
            {
              reference,
              credentials: credentialsFor(reference.domain),
              write: tell,
              ...(wanted === undefined ? {} : { platform: wanted }),
            },
            signal,
          );
        await buildImage({ ...dependencies, pull, write }, { ...options, ...parts }, context.signal);
      } finally {
        const used = [...lease.digests];
        lease[Symbol.dispose]();
        for (const digest of used) if (!images.isLayerBlob(digest)) await images.content.delete(digest);
      }
    });
  };
  return [
    { method: 'POST', path: '/build', handler: build },
    {
      method: 'POST',
      path: '/build/prune',
      since: 31,
      // The classic builder's cache is made of images; there is no other cache to prune.
      handler: (context) => context.json({ CachesDeleted: null, SpaceReclaimed: 0 }),
    },
    {
      method: 'POST',
      path: '/build/cancel',
      since: 39,
      handler: (context) => {
        if (context.query.text('id') === '') throw new GantryError('invalid', 'build ID not provided');
        throw new GantryError('notImplemented', 'BuildCancel is not implemented yet');
      },
    },
  ];
}
