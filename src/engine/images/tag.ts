/** `docker tag`. */
import type { ImageStore } from '#services/images/store.ts';
import { GantryError } from '#types/errors.ts';
import {
  familiarName,
  familiarString,
  parseReference,
  type Reference,
  withDefaultTag,
  withTag,
} from '#types/reference.ts';
import { type EmitEvent, imageAttributes } from './remove.ts';

/** The reference a repository and a tag make; throws docker's texts. */
export function makeReference(repository: string, tag: string): Reference {
  const reference = parseReference(repository);
  if (reference.digest !== undefined) throw new GantryError('invalid', 'cannot import digest reference');
  return tag === '' ? withDefaultTag(reference) : withTag(reference, tag);
}

/** Compat: the tag route looks at the name before it looks for the image. */
function checkName(reference: Reference): void {
  if (familiarName(reference) === 'sha256')
    throw new GantryError('invalid', 'refusing to create an ambiguous tag using digest algorithm as name');
}

/** The optional target of commit, import and build. */
export function makeOptionalReference(repository: string, tag: string): Reference | undefined {
  return repository === '' ? undefined : makeReference(repository, tag);
}

/** Gives an image one more name. */
export function tagImage(
  images: ImageStore,
  name: string,
  options: { repository: string; tag: string; emit: EmitEvent },
): void {
  const reference = makeReference(options.repository, options.tag);
  checkName(reference);
  const image = images.resolve(name);
  nameImage(images, image.id, { reference, emit: options.emit });
}

/** Adds a checked reference and says so in the events. */
export function nameImage(
  images: ImageStore,
  id: Parameters<ImageStore['get']>[0],
  options: { reference: Reference; emit: EmitEvent },
): void {
  images.addReference(options.reference, id);
  options.emit('image', 'tag', id, imageAttributes(images.get(id), familiarString(options.reference)));
}
