/** `pull`, `push` and `image bootstrap`: calls that answer with progress messages. */
import type { Writable } from 'node:stream';
import {
  canonicalName,
  canonicalString,
  isNameOnly,
  parseReference,
  type Reference,
  withDefaultTag,
} from '#types/reference.ts';
import { refuseContentTrust } from '../args/content-trust.ts';
import { ExitError } from '../args/usage-error.ts';
import { credentialsHeader, findCredentials, HUB_KEY } from '../config/credentials.ts';
import { type Api, jsonLines } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { printNote } from '../terminal/notes.ts';
import { renderProgress } from '../terminal/progress.ts';
import { platformJson } from './platforms.ts';

/** What to pull. */
export interface PullRequest {
  readonly image: Reference;
  readonly platform: string;
  readonly quiet: boolean;
  readonly output: Writable;
  readonly allTags?: boolean;
}

function nowhere(): Writable {
  const { Writable } = process.getBuiltinModule('node:stream');
  return new Writable({ write: (_chunk, _encoding, done) => done() });
}

/** The credentials for an image's registry as a header; empty ones are sent too, as docker does. */
export async function registryAuth(session: Session, domain: string): Promise<Record<string, string>> {
  const credentials = await findCredentials(session, domain === 'docker.io' ? HUB_KEY : domain);
  return { 'X-Registry-Auth': credentialsHeader(credentials) };
}

/** Pulls an image and draws the progress. */
export async function pullImage(session: Session, api: Api, request: PullRequest): Promise<void> {
  const { image } = request;
  const response = await api.open('POST', '/images/create', {
    query: {
      fromImage: canonicalName(image),
      tag: request.allTags === true ? undefined : (image.digest ?? image.tag ?? 'latest'),
      platform: request.platform.toLowerCase() || undefined,
    },
    headers: await registryAuth(session, image.domain),
  });
  await renderProgress(jsonLines(response), request.quiet ? nowhere() : request.output);
}

/** The reference of `pull` and `push`; says when the tag is the default one. */
function readReference(session: Session): Reference {
  const { flags } = session;
  const image = parseReference(session.args[0] ?? '');
  if (!isNameOnly(image)) {
    if (flags.bool('all-tags')) throw new ExitError(1, "tag can't be used with --all-tags/-a\n");
    return image;
  }
  if (flags.bool('all-tags')) return image;
  if (!flags.bool('quiet')) session.print('Using default tag: latest\n');
  return withDefaultTag(image);
}

/** `pull`. */
export async function pullCommand(session: Session): Promise<number> {
  const { flags } = session;
  const image = readReference(session);
  if (image.digest === undefined) refuseContentTrust(session.flags);
  const api = await session.connect();
  await pullImage(session, api, {
    image,
    platform: flags.text('platform', process.env['DOCKER_DEFAULT_PLATFORM'] ?? ''),
    quiet: flags.bool('quiet'),
    output: process.stdout,
    allTags: flags.bool('all-tags'),
  });
  session.print(`${canonicalString(image)}\n`);
  return 0;
}

const ONLY_ONE_PLATFORM = [
  'Using --platform pushes only the specified platform manifest of a multi-platform image index.',
  'Other components, like attestations, will not be included.',
  'To push the complete multi-platform image, remove the --platform flag.',
  '',
].join('\n');

const CONTENT_MISSING = [
  "You're trying to push a manifest list/index which ",
  '\t\t\t\treferences multiple platform specific manifests, but not all of them are available locally',
  '\t\t\t\tor available to the remote repository.',
  '',
  '\t\t\t\tMake sure you have all the referenced content and try again.',
  '',
  '\t\t\t\tYou can also push only a single platform specific manifest directly by specifying the platform you want to push with the --platform flag.',
].join('\n');

interface PushAux {
  readonly manifestPushedInsteadOfIndex?: boolean;
  readonly originalIndex?: { readonly digest?: string };
  readonly selectedManifest?: { readonly digest?: string };
  readonly contentMissing?: boolean;
}

/** What the daemon tells about the push besides its progress. */
function noteOf(aux: PushAux): string | undefined {
  if (aux.manifestPushedInsteadOfIndex === true)
    return `Not all multiplatform-content is present and only the available single-platform image was pushed\n\x1b[31m${aux.originalIndex?.digest ?? ''}\x1b[0m -> \x1b[32m${aux.selectedManifest?.digest ?? ''}\x1b[0m`;
  return aux.contentMissing === true ? CONTENT_MISSING : undefined;
}

function pushPlatform(session: Session): string | undefined {
  const text = session.flags.text('platform');
  if (text === '') return undefined;
  try {
    const json = platformJson(text);
    printNote(process.stdout, ONLY_ONE_PLATFORM);
    return json;
  } catch (error) {
    // Compat: no line end between the two.
    throw new ExitError(1, `Invalid platform ${text}${(error as Error).message}\n`);
  }
}

/** `push`. */
export async function pushCommand(session: Session): Promise<number> {
  const { flags } = session;
  const api = await session.connect();
  const platform = pushPlatform(session);
  const image = readReference(session);
  refuseContentTrust(session.flags);
  const headers = await registryAuth(session, image.domain);
  const response = await api.open('POST', `/images/${segment(canonicalName(image))}/push`, {
    query: { tag: flags.bool('all-tags') ? undefined : (image.tag ?? image.digest), platform },
    headers,
  });
  const notes: string[] = [];
  const onAux = (aux: unknown): void => {
    const note = noteOf(aux as PushAux);
    if (note !== undefined) notes.push(note);
  };
  try {
    await renderProgress(jsonLines(response), flags.bool('quiet') ? nowhere() : process.stdout, { onAux });
    if (flags.bool('quiet')) session.print(`${canonicalString(image)}\n`);
  } finally {
    for (const note of notes) printNote(process.stdout, note);
  }
  return 0;
}

/** `image bootstrap`. */
export async function bootstrapCommand(session: Session): Promise<number> {
  const api = await session.connect();
  const response = await api.open('POST', '/gantry/images/bootstrap', { query: { name: session.args[0] ?? '' } });
  await renderProgress(jsonLines(response), session.flags.bool('quiet') ? nowhere() : process.stdout);
  return 0;
}
