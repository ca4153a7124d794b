/** `create`, and the part of `run` that makes the container: options, pull policy, cidfile. */
import { containerOptions } from '../args/container-options.ts';
import { ExitError, runError } from '../args/usage-error.ts';
import { type Api, ApiError, type Json } from '../connection/api.ts';
import type { Session } from '../session.ts';

const fs = process.getBuiltinModule('node:fs');

function checkPullPolicy(session: Session): void {
  const policy = session.flags.text('pull', 'missing');
  if (!['always', 'missing', 'never'].includes(policy)) {
    throw runError(session.command, `invalid pull option: '${policy}': must be one of "always", "missing" or "never"`);
  }
}

async function pull(session: Session, api: Api, image: string): Promise<void> {
  const { pullImage } = await import('./transfer.ts');
  await pullImage(session, api, {
    image,
    platform: session.flags.text('platform'),
    quiet: session.flags.bool('quiet'),
    output: process.stderr,
  });
}

function isMissingImage(error: unknown, image: string): boolean {
  return error instanceof ApiError && error.status === 404 && /no such image/i.test(error.message) && image !== '';
}

/** `name` with the tag docker adds in messages. */
export function familiarName(image: string): string {
  if (image.includes('@') || /:[^/]*$/.test(image)) return image;
  return `${image}:latest`;
}

async function requestCreate(session: Session, api: Api, verb: 'run' | 'create'): Promise<Json> {
  const { flags, args } = session;
  let options: Awaited<ReturnType<typeof containerOptions>>;
  try {
    options = await containerOptions(flags, { args, config: session.config, verb, host: api.endpoint.host });
  } catch (error) {
    if (error instanceof Error && !(error instanceof ExitError)) throw runError(session.command, error.message);
    throw error;
  }
  const image = args[0] ?? '';
  const create = (): Promise<Json> =>
    api.json('POST', '/containers/create', {
      query: { name: flags.text('name') || undefined, platform: flags.text('platform') || undefined },
      body: { ...options.config, HostConfig: options.hostConfig, NetworkingConfig: options.networkingConfig },
    });
  if (flags.text('pull') === 'always') await pull(session, api, image);
  try {
    return await create();
  } catch (error) {
    if (!isMissingImage(error, image) || flags.text('pull', 'missing') !== 'missing') throw error;
    if (!flags.bool('quiet')) session.warn(`Unable to find image '${familiarName(image)}' locally`);
    await pull(session, api, image);
    return create();
  }
}

/** Creates the container and returns its ID; failures end with docker's code 125. */
export async function createContainer(session: Session, api: Api, verb: 'run' | 'create'): Promise<string> {
  checkPullPolicy(session);
  const cidfile = session.flags.text('cidfile');
  if (cidfile !== '' && fs.existsSync(cidfile)) {
    throw runError(
      session.command,
      `container ID file found, make sure the other container isn't running or delete ${cidfile}`,
    );
  }
  let created: Json;
  try {
    created = await requestCreate(session, api, verb);
  } catch (error) {
    if (error instanceof ApiError) throw runError(session.command, error.message);
    throw error;
  }
  for (const warning of (created['Warnings'] as string[] | null) ?? []) session.warn(`WARNING: ${warning}`);
  const id = String(created['Id']);
  if (cidfile !== '') fs.writeFileSync(cidfile, id);
  return id;
}

/** `create`. */
export async function createCommand(session: Session): Promise<number> {
  const api = await session.connect();
  session.print(`${await createContainer(session, api, 'create')}\n`);
  return 0;
}
