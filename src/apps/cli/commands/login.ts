/** `login` and `logout`: credentials are checked by the daemon, then kept by the credential store. */

import { ExitError } from '../args/usage-error.ts';
import {
  type Credentials,
  eraseCredentials,
  findCredentials,
  HUB_KEY,
  hostOf,
  storeCredentials,
} from '../config/credentials.ts';
import { type Api, ApiError } from '../connection/api.ts';
import type { Session } from '../session.ts';
import { printNote, printWarning } from '../terminal/notes.ts';
import { ask, askSecret } from '../terminal/prompt.ts';

/** The name that means Docker Hub. */
const HUB_NAME = 'docker.io';
/** A password from stdin that is longer is none. */
const MAX_PASSWORD_BYTES = 1024 * 1024;

interface Given {
  readonly user: string;
  readonly password: string;
}

function checkFlags(session: Session): void {
  const { flags } = session;
  const wrong = (text: string): ExitError => new ExitError(1, `${text}\n`);
  if (flags.has('password-stdin')) {
    if (flags.has('password')) throw wrong('conflicting options: cannot specify both --password and --password-stdin');
    if (!flags.has('username')) throw wrong('the --password-stdin option requires --username to be set');
  }
  if (flags.has('username') && flags.text('username') === '') throw wrong('username is empty');
  if (flags.has('password') && flags.text('password') === '') throw wrong('password is empty');
}

async function readPassword(): Promise<string> {
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) {
    text += chunk as string;
    if (text.length > MAX_PASSWORD_BYTES) throw new ExitError(1, 'the password on standard input is too long\n');
  }
  return text.replace(/\n$/, '').replace(/\r$/, '');
}

async function given(session: Session): Promise<Given> {
  const { flags } = session;
  checkFlags(session);
  const password = flags.text('password');
  if (password !== '') session.warn('WARNING! Using --password via the CLI is insecure. Use --password-stdin.');
  return {
    user: flags.text('username'),
    password: flags.bool('password-stdin') ? await readPassword() : password,
  };
}

function warnOfEnvironment(): void {
  if (!process.env['DOCKER_AUTH_CONFIG']) return;
  printWarning(
    process.stderr,
    'DOCKER_AUTH_CONFIG is set and takes precedence.\nUnset DOCKER_AUTH_CONFIG to restore the CLI auth behaviour.\n',
  );
}

interface AuthAnswer {
  readonly Status?: string;
  readonly IdentityToken?: string;
}

function authenticate(api: Api, credentials: Credentials): Promise<AuthAnswer> {
  return api.json<AuthAnswer>('POST', '/auth', { body: credentials });
}

/** An identity token replaces the password. */
function kept(credentials: Credentials, answer: AuthAnswer): Credentials {
  const token = answer.IdentityToken ?? '';
  if (token === '') return credentials;
  const { password: _, ...rest } = credentials;
  return { ...rest, identitytoken: token };
}

/** Tries what is stored; undefined when that failed and new credentials are needed. */
async function loginAgain(session: Session, api: Api, stored: Credentials): Promise<string | undefined> {
  session.warn(`Authenticating with existing credentials... [Username: ${stored.username ?? ''}]`);
  printNote(process.stderr, "To login with a different account, run 'docker logout' followed by 'docker login'");
  session.warn('\n');
  let answer: AuthAnswer;
  try {
    answer = await authenticate(api, stored);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    session.warn(
      error.status === 401 ? 'Stored credentials invalid or expired' : `Login did not succeed, error: ${error.message}`,
    );
    return undefined;
  }
  await storeCredentials(session, kept(stored, answer));
  return answer.Status ?? '';
}

async function promptFor(
  session: Session,
  server: string,
  known: Given & { readonly suggested: string },
): Promise<Given> {
  let user = known.user.trim();
  if (user === '') {
    if (server === HUB_KEY)
      session.print(
        "Log in with your Docker ID or email address to push and pull images from Docker Hub. If you don't have a Docker ID, head over to https://hub.docker.com/ to create one.\n",
      );
    const suggested = known.suggested.trim();
    user = (await ask(suggested === '' ? 'Username: ' : `Username (${suggested}): `)) || suggested;
    if (user === '') throw new ExitError(1, 'Error: Non-null Username Required\n');
  }
  let password = known.password.trim();
  if (password === '') {
    if (server === HUB_KEY)
      printNote(
        process.stderr,
        'A Personal Access Token (PAT) can be used instead.\nTo create a PAT, visit \x1b[4mhttps://app.docker.com/settings\x1b[0m\n\n',
      );
    password = await askSecret('Password: ');
    session.print('\n');
    if (password === '') throw new ExitError(1, 'Error: Password Required\n');
  }
  return { user, password };
}

/** `login`. */
export async function loginCommand(session: Session): Promise<number> {
  const known = await given(session);
  warnOfEnvironment();
  const name = session.args[0] ?? '';
  const server = name === '' || name === HUB_NAME ? HUB_KEY : hostOf(name);
  const api = await session.connect();
  let stored: Credentials = {};
  if (known.user === '' && known.password === '') {
    // What cannot be read is asked for.
    const found = await findCredentials(session, server).catch((): Credentials => ({}));
    const { identitytoken: _, ...rest } = found;
    stored = { ...rest, serveraddress: server };
    if (stored.username && stored.password) {
      const message = await loginAgain(session, api, stored);
      if (message !== undefined) {
        if (message !== '') session.print(`${message}\n`);
        return 0;
      }
    }
  }
  if ((known.user === '' || known.password === '') && !process.stdin.isTTY)
    throw new ExitError(1, 'Error: Cannot perform an interactive login from a non TTY device\n');
  const entered = await promptFor(session, server, { ...known, suggested: stored.username ?? '' });
  const credentials = { username: entered.user, password: entered.password, serveraddress: server };
  const answer = await authenticate(api, credentials);
  await storeCredentials(session, kept(credentials, answer));
  if (answer.Status) session.print(`${answer.Status}\n`);
  return 0;
}

/** `logout`. */
export async function logoutCommand(session: Session): Promise<number> {
  warnOfEnvironment();
  const name = session.args[0] ?? '';
  const host = name === '' ? HUB_KEY : hostOf(name);
  const servers = name === '' ? [HUB_KEY] : [name, host, `http://${host}`, `https://${host}`];
  session.print(`Removing login credentials for ${host}\n`);
  const failures: string[] = [];
  for (const server of servers) {
    try {
      await eraseCredentials(session, server);
    } catch (error) {
      failures.push(`${server}: ${(error as Error).message}`);
    }
  }
  // Any success counts, because only one of the spellings was stored.
  if (failures.length === servers.length)
    session.warn(['WARNING: could not erase credentials:', ...failures].join('\n'));
  return 0;
}
