/** `create`, and the part of `run` that makes the container: options, pull policy, cidfile. */
import { familiarString, parseAnyReference, type Reference, withDefaultTag } from '#types/reference.ts';
import { containerOptions } from '../args/container-options.ts';
import { refuseContentTrust } from '../args/content-trust.ts';
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

async function pull(session: Session, api: Api, image: Reference): Promise<void> {
  const { pullImage } = await import('./transfer.ts');
  await pullImage(session, api, {
    image,
    platform: platformOf(session),
    quiet: session.flags.bool('quiet'),
    output: process.stderr,
  });
}

function platformOf(session: Session): string {
  return session.flags.text('platform', process.env['DOCKER_DEFAULT_PLATFORM'] ?? '');
}

/** The image's name with its tag; undefined when it is a bare ID. */
function namedImage(session: Session, text: string): Reference | undefined {
  try {
    const reference = parseAnyReference(text);
    return reference.kind === 'named' ? withDefaultTag(reference.reference) : undefined;
  } catch (error) {
    const text = (error as Error).message;
    throw session.command.name === 'container run' ? runError(session.command, text) : new ExitError(1, `${text}\n`);
  }
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
  const image = namedImage(session, args[0] ?? '');
  // Compat: API 1.42 dropped the kernel memory limit, and docker then leaves it out.
  if (flags.has('kernel-memory')) {
    await api.negotiate();
    if (api.atLeast('1.42')) delete options.hostConfig['KernelMemory'];
  }
  const create = (): Promise<Json> =>
    api.json('POST', '/containers/create', {
      query: { name: flags.text('name') || undefined, platform: platformOf(session) || undefined },
      body: { ...options.config, HostConfig: options.hostConfig, NetworkingConfig: options.networkingConfig },
    });
  if (flags.text('pull') === 'always' && image !== undefined) await pull(session, api, image);
  try {
    return await create();
  } catch (error) {
    // Compat: whatever is not found, docker then pulls the image.
    const isMissing = error instanceof ApiError && error.status === 404;
    if (!isMissing || image === undefined || flags.text('pull', 'missing') !== 'missing') throw error;
    if (!flags.bool('quiet')) session.warn(`Unable to find image '${familiarString(image)}' locally`);
    await pull(session, api, image);
    return create();
  }
}

/** Creates the container and returns its ID; failures end with docker's code 125. */
export async function createContainer(session: Session, api: Api, verb: 'run' | 'create'): Promise<string> {
  checkPullPolicy(session);
  refuseContentTrust(session.flags);
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
    if (!(error instanceof ApiError)) throw error;
    // Compat: only `run` has its own code and hint for what the daemon refused.
    throw verb === 'run' ? runError(session.command, error.message) : new ExitError(1, `${error.message}\n`);
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
