/** Image operations of the Engine API, except build and what speaks to registries (registry.ts). */
import { bootstrapImage } from '#engine/images/bootstrap.ts';
import { type CommitOptions, type CommittedContainer, commitContainer } from '#engine/images/commit.ts';
import { importImage } from '#engine/images/import.ts';
import { imageHistory, inspectImage } from '#engine/images/inspect.ts';
import { type ImageSummary, LIST_FILTERS, listImages } from '#engine/images/list.ts';
import { loadImages } from '#engine/images/load.ts';
import { manifestSummaries } from '#engine/images/manifest-summaries.ts';
import type { WriteProgress } from '#engine/images/progress.ts';
import { type EmitEvent, type ImageUse, PRUNE_FILTERS, pruneImages, removeImage } from '#engine/images/remove.ts';
import { saveImages } from '#engine/images/save.ts';
import { makeOptionalReference, tagImage } from '#engine/images/tag.ts';
import type { ImageRunConfig } from '#services/images/contract.ts';
import type { RegistryRecords, StoredManifest } from '#services/images/registry-records.ts';
import type { ImageStore } from '#services/images/store.ts';
import type { TarCodec } from '#services/images/tar-codec.ts';
import type { Digest } from '#types/digest.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { type Platform, parsePlatform } from '#types/platform.ts';
import { familiarString } from '#types/reference.ts';
import { plainValue, readJson } from '#wire/go-json.ts';
import { bodyBytes } from '../http/body.ts';
import type { Handler, Route, RouteContext } from '../http/route.ts';

export interface ImageRouteDependencies {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  readonly emit: EmitEvent;
  readonly uses: () => readonly ImageUse[];
  readonly records: RegistryRecords;
  /** `fromImage` of create. */
  readonly pull: Handler;
}

/** The container side of commit. */
export interface CommitRouteDependencies {
  readonly images: ImageStore;
  readonly emit: EmitEvent;
  /** Finds the container and runs `work`, paused meanwhile when `pause` is set; emits its commit event. */
  readonly withContainer: <T extends { id: string }>(
    name: string,
    options: { readonly pause: boolean; readonly comment: string; readonly imageName: string },
    work: (container: CommittedContainer) => Promise<T>,
  ) => Promise<T>;
}

/** The `platform` parameter: JSON object, or `os/arch/variant` on create. */
function jsonPlatform(context: RouteContext): Platform | undefined {
  const values = context.query.all('platform').filter((value) => value !== '');
  if (values.length > 1) throw new GantryError('invalid', 'multiple platform parameters not supported');
  const text = values[0];
  if (text === undefined) return undefined;
  return decodePlatform(text);
}

/** A platform as the JSON object clients send. */
export function decodePlatform(text: string): Platform {
  let value: { os?: unknown; architecture?: unknown; variant?: unknown };
  try {
    const read = readJson(text);
    if (read === undefined) throw new Error('EOF');
    value = plainValue(read.value) as typeof value;
  } catch (error) {
    throw new GantryError('invalid', `failed to parse platform: ${errorMessage(error)}`, { cause: error });
  }
  if (
    typeof value?.os !== 'string' ||
    typeof value.architecture !== 'string' ||
    value.os === '' ||
    value.architecture === ''
  ) {
    throw new GantryError('invalid', 'both OS and Architecture must be provided');
  }
  return {
    os: value.os,
    architecture: value.architecture,
    ...(typeof value.variant === 'string' ? { variant: value.variant } : {}),
  };
}

const optionalPlatform = (platform: Platform | undefined): { platform?: Platform } =>
  platform === undefined ? {} : { platform };

/** Runs a use-case whose errors go into the stream once output has begun (or in any case), as dockerd does. */
export async function streaming(
  context: RouteContext,
  work: (write: WriteProgress) => Promise<void>,
  options: { always200?: boolean } = {},
): Promise<void> {
  let lines: ReturnType<RouteContext['jsonLines']> | undefined;
  const write: WriteProgress = (message) => {
    lines ??= context.jsonLines();
    return lines.write(message);
  };
  try {
    await work(write);
  } catch (error) {
    if (lines === undefined && options.always200 !== true) throw error;
    lines ??= context.jsonLines();
    const message = errorMessage(error);
    const code = (error as { code?: unknown }).code;
    await lines.write({ errorDetail: { ...(typeof code === 'number' ? { code } : {}), message }, error: message });
  }
  lines ??= context.jsonLines();
  lines.end();
}

const body = (context: RouteContext): AsyncIterable<Buffer> => bodyBytes(context.request);

/** Before API 1.43: no names are shown as `<none>`, no names of one kind as null. */
function namesBefore43({ RepoTags: tags, RepoDigests: digests }: ImageSummary): object {
  if (tags.length + digests.length === 0) return { RepoTags: ['<none>:<none>'], RepoDigests: ['<none>@<none>'] };
  return { RepoTags: tags.length === 0 ? null : tags, RepoDigests: digests.length === 0 ? null : digests };
}

/** Routes of the Image tag that need no container engine. */
export function imageRoutes(dependencies: ImageRouteDependencies): Route[] {
  const { images, records, tar, emit, uses } = dependencies;
  const removal = { images, uses, emit };
  const manifestsOf = (id: Digest): object => {
    const image = images.get(id);
    const indexes = (of: Digest): StoredManifest[] => records.indexes(of);
    const found = image === undefined ? [] : manifestSummaries({ images, uses, indexes }, image);
    return found.length === 0 ? {} : { Manifests: found };
  };
  const list: Handler = (context) => {
    const { query, version } = context;
    const filters = new Map(query.filters(LIST_FILTERS));
    if (!version.atLeast(41) && query.text('filter') !== '') filters.set('reference', [query.text('filter')]);
    const all = uses();
    const summaries = listImages(images, {
      all: query.flag('all'),
      sharedSize: version.atLeast(42) && query.flag('shared-size'),
      filters,
      ...(version.atLeast(51) ? { containerCount: (id) => all.filter((use) => use.imageId === id).length } : {}),
    });
    context.json(
      summaries.map((summary) => ({
        ...summary,
        ...(version.atLeast(44) ? {} : { VirtualSize: summary.Size }),
        ...(version.atLeast(43) ? {} : namesBefore43(summary)),
        ...(version.atLeast(47) && query.flag('manifests') ? manifestsOf(summary.Id as Digest) : {}),
      })),
    );
  };
  const create: Handler = async (context) => {
    const { query } = context;
    const source = query.text('fromSrc');
    if (query.text('fromImage') !== '') return dependencies.pull(context);
    const reference = makeOptionalReference(query.text('repo'), query.text('tag'));
    const platform = query.text('platform') === '' ? undefined : parsePlatform(query.text('platform'));
    const options = {
      source,
      body: body(context),
      message: query.text('message') || `Imported from ${source}`,
      changes: query.all('changes'),
      ...(reference === undefined ? {} : { reference }),
      ...optionalPlatform(platform),
    };
    await streaming(context, async (write) => {
      await importImage({ images, tar, emit }, { ...options, write }, context.signal);
    });
  };
  const inspect: Handler = (context) => {
    const { query, version, params } = context;
    const platform = version.atLeast(49) ? jsonPlatform(context) : undefined;
    const manifests = version.atLeast(48) && query.flag('manifests');
    if (manifests && platform !== undefined) {
      throw new GantryError('invalid', 'conflicting options: manifests and platform options cannot both be set');
    }
    const answer = inspectImage(images, params['name'] ?? '', {
      ...optionalPlatform(platform),
      atLeast: (minor) => version.atLeast(minor),
    });
    context.json({ ...answer, ...(manifests ? manifestsOf(answer['Id'] as Digest) : {}) });
  };
  const remove: Handler = async (context) => {
    const { query, params, version } = context;
    const name = params['name'] ?? '';
    if (name.trim() === '') throw new GantryError('invalid', 'image name cannot be blank');
    const platforms = version.atLeast(50) ? query.all('platforms') : [];
    if (platforms.length > 1) throw new GantryError('invalid', 'multiple platforms are not supported');
    const wanted = platforms[0] === undefined ? undefined : decodePlatform(platforms[0]);
    if (wanted !== undefined) inspectImage(images, name, { platform: wanted, atLeast: () => true });
    context.json(await removeImage(removal, name, { force: query.flag('force'), prune: !query.flag('noprune') }));
  };
  const save = async (context: RouteContext, names: readonly string[]): Promise<void> => {
    const platform = context.version.atLeast(48) ? jsonPlatform(context) : undefined;
    await context.bytes('application/x-tar', saveImages({ images, records, tar, emit }, names, platform));
  };
  const load: Handler = async (context) => {
    const platform = context.version.atLeast(48) ? jsonPlatform(context) : undefined;
    const quiet = context.query.flag('quiet', true);
    // Compat: whatever the archive holds, the answer is 200 and tells the error in its stream.
    await streaming(
      context,
      (write) =>
        loadImages(
          { images, records, tar, emit },
          body(context),
          { quiet, write, ...optionalPlatform(platform) },
          context.signal,
        ),
      { always200: true },
    );
  };
  const bootstrap: Handler = async (context) => {
    await streaming(context, async (write) => {
      await bootstrapImage({ images, tar, emit, write }, context.query.text('name'), context.signal);
    });
  };
  return [
    { method: 'GET', path: '/images/json', handler: list },
    { method: 'POST', path: '/images/create', handler: create },
    { method: 'GET', path: '/images/get', handler: (context) => save(context, context.query.all('names')) },
    { method: 'POST', path: '/images/load', handler: load },
    {
      method: 'POST',
      path: '/images/prune',
      handler: async (context) =>
        context.json(await pruneImages(removal, context.query.filters(PRUNE_FILTERS), context.signal)),
      since: 25,
    },
    {
      method: 'GET',
      path: '/images/{name:.*}/get',
      handler: (context) => save(context, [context.params['name'] ?? '']),
    },
    {
      method: 'GET',
      path: '/images/{name:.*}/history',
      handler: (context) =>
        context.json(
          imageHistory(
            images,
            context.params['name'] ?? '',
            context.version.atLeast(48) ? jsonPlatform(context) : undefined,
          ),
        ),
    },
    { method: 'GET', path: '/images/{name:.*}/json', handler: inspect },
    {
      method: 'POST',
      path: '/images/{name:.*}/tag',
      handler: (context) => {
        // Compat: without a repository nothing is done, and that is fine.
        if (context.query.text('repo') === '') return context.empty(200);
        tagImage(images, context.params['name'] ?? '', {
          repository: context.query.text('repo'),
          tag: context.query.text('tag'),
          emit,
        });
        context.empty(201);
      },
    },
    { method: 'DELETE', path: '/images/{name:.*}', handler: remove },
    { method: 'POST', path: '/gantry/images/bootstrap', handler: bootstrap },
  ];
}

/** `POST /commit`. */
export function commitRoutes(dependencies: CommitRouteDependencies): Route[] {
  const { images, emit, withContainer } = dependencies;
  const handler: Handler = async (context) => {
    const { query } = context;
    const config = await context.optionalBody<ImageRunConfig>('ContainerConfig');
    const reference = makeOptionalReference(query.text('repo'), query.text('tag'));
    const options: CommitOptions = {
      ...(config === undefined ? {} : { config }),
      changes: query.all('changes'),
      author: query.text('author'),
      comment: query.text('comment'),
      ...(reference === undefined ? {} : { reference }),
    };
    const asked = {
      pause: query.flag('pause', true),
      comment: query.text('comment'),
      imageName: reference === undefined ? '' : familiarString(reference),
    };
    const made = await withContainer(query.text('container'), asked, (container) =>
      commitContainer({ images, emit }, container, options, context.signal),
    );
    context.json({ Id: made.id }, 201);
  };
  return [{ method: 'POST', path: '/commit', handler }];
}
