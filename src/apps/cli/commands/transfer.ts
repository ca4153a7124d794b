/** `pull`, `push` and `image bootstrap`: calls that answer with progress messages. */
import type { Writable } from 'node:stream';
import { type Api, jsonLines } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { renderProgress } from '../terminal/progress.ts';
import { splitReference } from './container-verbs.ts';

/** What to pull. */
export interface PullRequest {
  readonly image: string;
  readonly platform: string;
  readonly quiet: boolean;
  readonly output: Writable;
  readonly allTags?: boolean;
}

function registryAuth(session: Session, image: string): Record<string, string> {
  const host =
    image.includes('/') && /[.:]|^localhost$/.test(image.split('/')[0] ?? '')
      ? (image.split('/')[0] ?? '')
      : 'https://index.docker.io/v1/';
  const stored = session.config.auths?.[host];
  if (stored === undefined) return {};
  const [username = '', password = ''] = Buffer.from(stored['auth'] ?? '', 'base64')
    .toString()
    .split(/:(.*)/s);
  const credentials =
    stored['identitytoken'] === undefined
      ? { username, password, serveraddress: host }
      : { identitytoken: stored['identitytoken'], serveraddress: host };
  return { 'X-Registry-Auth': Buffer.from(JSON.stringify(credentials)).toString('base64url') };
}

/** Pulls an image and draws the progress. */
export async function pullImage(session: Session, api: Api, request: PullRequest): Promise<void> {
  const { image } = request;
  const at = image.indexOf('@');
  const parts =
    at === -1 ? splitReference(image) : { repo: image.slice(0, at).replace(/:[^/:]*$/, ''), tag: image.slice(at + 1) };
  const response = await api.open('POST', '/images/create', {
    query: {
      fromImage: parts.repo,
      tag: request.allTags === true ? undefined : parts.tag || 'latest',
      platform: request.platform || undefined,
    },
    headers: registryAuth(session, image),
  });
  const { Writable } = process.getBuiltinModule('node:stream');
  const sink = request.quiet ? new Writable({ write: (_chunk, _encoding, done) => done() }) : request.output;
  await renderProgress(jsonLines(response), sink);
}

/** The name with its registry, as `pull` prints at the end. */
export function canonicalName(image: string): string {
  const tagged = image.includes('@') || /:[^/]*$/.test(image) ? image : `${image}:latest`;
  const first = tagged.split('/')[0] ?? '';
  if (tagged.includes('/') && (/[.:]/.test(first) || first === 'localhost')) return tagged;
  return `docker.io/${tagged.includes('/') ? '' : 'library/'}${tagged}`;
}

/** `pull`. */
export async function pullCommand(session: Session): Promise<number> {
  const { flags } = session;
  const image = session.args[0] ?? '';
  const api = await session.connect();
  const allTags = flags.bool('all-tags');
  if (!allTags && !flags.bool('quiet') && !image.includes('@') && splitReference(image).tag === '')
    session.print('Using default tag: latest\n');
  await pullImage(session, api, {
    image,
    platform: flags.text('platform'),
    quiet: flags.bool('quiet'),
    output: process.stdout,
    allTags,
  });
  session.print(`${canonicalName(image)}\n`);
  return 0;
}

/** `push`. */
export async function pushCommand(session: Session): Promise<number> {
  const image = session.args[0] ?? '';
  const { repo, tag } = splitReference(image);
  const api = await session.connect();
  const auth = registryAuth(session, image);
  const response = await api.open('POST', `/images/${segment(repo)}/push`, {
    query: { tag: session.flags.bool('all-tags') ? undefined : tag || 'latest' },
    headers: { 'X-Registry-Auth': auth['X-Registry-Auth'] ?? 'e30=' },
  });
  await renderProgress(jsonLines(response), process.stdout);
  return 0;
}

/** `image bootstrap`. */
export async function bootstrapCommand(session: Session): Promise<number> {
  const api = await session.connect();
  const response = await api.open('POST', '/gantry/images/bootstrap', { query: { name: session.args[0] ?? '' } });
  const { Writable } = process.getBuiltinModule('node:stream');
  await renderProgress(
    jsonLines(response),
    session.flags.bool('quiet') ? new Writable({ write: (_chunk, _encoding, done) => done() }) : process.stdout,
  );
  return 0;
}
