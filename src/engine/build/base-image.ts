/** The images a Dockerfile names: those that are here, else, or always with `--pull`, what their registry has. */
import type { Image } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import { GantryError } from '#types/errors.ts';
import type { Platform } from '#types/platform.ts';
import { parseReference, type Reference, withDefaultTag } from '#types/reference.ts';
import { resolveForPlatform } from '../images/inspect.ts';
import type { WriteProgress } from '../images/progress.ts';

/** Brings an image here from its registry. */
export type PullBase = (
  reference: Reference,
  options: { readonly platform?: Platform; readonly write: WriteProgress },
  signal: AbortSignal,
) => Promise<void>;

export interface BaseImageOptions {
  readonly pull: boolean;
  readonly quiet: boolean;
  readonly platform?: Platform;
}

/** Finds the image, pulling it if need be. */
export async function baseImage(
  context: { images: ImageStore; pull: PullBase; write: WriteProgress },
  options: BaseImageOptions,
  name: string,
  signal: AbortSignal | undefined,
): Promise<Image> {
  const { images, pull } = context;
  const { platform } = options;
  if (!options.pull) {
    try {
      return resolveForPlatform(images, name, platform);
    } catch (error) {
      if (!(error instanceof GantryError) || error.kind !== 'notFound') throw error;
    }
  }
  const write: WriteProgress = options.quiet ? () => undefined : context.write;
  await pull(
    withDefaultTag(parseReference(name)),
    { write, ...(platform === undefined ? {} : { platform }) },
    signal ?? new AbortController().signal,
  );
  return images.resolve(name);
}
