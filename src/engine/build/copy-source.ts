/** The trees that COPY reads: the build context, an earlier stage, or another image. */
import type { Image } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import { GantryError } from '#types/errors.ts';
import { cleanRelative } from '#types/path.ts';
import type { SourceTree } from './context.ts';
import type { CopyLookup } from './copy.ts';
import { RootView } from './rootfs.ts';

/** A stage that `--from` may name. */
export interface FinishedStage {
  readonly name: string;
  readonly image: Image | undefined;
}

/** Where COPY takes files from: the context, or the tree of a stage or image. */
export async function openCopySource(
  from: string | undefined,
  build: {
    files: SourceTree;
    images: ImageStore;
    done: readonly FinishedStage[];
    /** Finds an image, pulling it if need be. */
    resolve: (name: string) => Promise<Image>;
  },
): Promise<{ lookup: CopyLookup } & AsyncDisposable> {
  const { files, images, done: stages } = build;
  if (from === undefined) {
    const lookup: CopyLookup = { entries: async (path) => files.under(path), paths: async () => files.paths() };
    return { lookup, [Symbol.asyncDispose]: async () => {} };
  }
  const named = stages.find((done) => done.name !== '' && done.name === from.toLowerCase());
  const index = /^\d+$/.test(from) ? Number(from) : -1;
  if (index === stages.length)
    throw new GantryError('system', `invalid from flag value ${from}: refers to current build stage`);
  if (index > stages.length) throw new GantryError('system', `invalid from flag value ${from}: index out of bounds`);
  const image = named?.image ?? stages[index]?.image ?? (await fromImage(build.resolve, from));
  const root = await RootView.open(images.snapshots, image.topLayer);
  const lookup: CopyLookup = {
    entries: async (path) => {
      const resolved = await root.resolve(path);
      if ((await root.kind(resolved)) === undefined) return [];
      const found = await root.entries(resolved);
      // The asked-for name stays, even where it was a link.
      return found.map((item) => ({
        ...item,
        entry: { ...item.entry, path: cleanRelative(`${path}/${item.entry.path.slice(resolved.length)}`) },
      }));
    },
    paths: async () => (await root.entries('')).map((item) => item.entry.path),
  };
  return { lookup, [Symbol.asyncDispose]: () => root[Symbol.asyncDispose]() };
}

async function fromImage(resolve: (name: string) => Promise<Image>, from: string): Promise<Image> {
  try {
    return await resolve(from);
  } catch (error) {
    throw error instanceof GantryError
      ? new GantryError(error.kind, `invalid from flag value ${from}: ${error.message}`, { cause: error })
      : error;
  }
}
