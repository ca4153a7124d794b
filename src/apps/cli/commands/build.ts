/** `build` with the classic builder: the context as a tar, the Dockerfile's path, the daemon's messages. */
import { encodeCredentials } from '#client/images.ts';
import { parseReference } from '#types/reference.ts';
import {
  type BuildContext,
  contextFromDirectory,
  contextFromStream,
  contextFromUrl,
} from '../archive/build-context.ts';
import { keyValues, resourceLimits } from '../args/container-options.ts';
import { refuseContentTrust } from '../args/content-trust.ts';
import { parseUlimit } from '../args/structured-values.ts';
import { ExitError, flagError } from '../args/usage-error.ts';
import { allCredentials, type Credentials } from '../config/credentials.ts';
import { jsonLines } from '../connection/api.ts';
import type { Session } from '../session.ts';
import { renderProgress } from '../terminal/progress.ts';
import { humanSize } from '../text/go-text.ts';

const fs = process.getBuiltinModule('node:fs');

/** How often a terminal is told how much was sent. */
const PROGRESS_STEP_BYTES = 512 * 1024;

/** Build arguments; a bare name takes the caller's value. */
function buildArguments(values: readonly string[]): Record<string, string | null> {
  const result: Record<string, string | null> = {};
  for (const value of values) {
    const [name = '', text] = value.split(/=(.*)/s);
    result[name] = text ?? process.env[name] ?? null;
  }
  return result;
}

async function prepareContext(session: Session): Promise<BuildContext> {
  const [context = ''] = session.args;
  const file = session.flags.text('file');
  const stdin = process.stdin as AsyncIterable<Buffer>;
  if (context === '-') {
    if (file === '-')
      throw new ExitError(1, "invalid argument: can't use stdin for both build context and dockerfile\n");
    try {
      return await contextFromStream(stdin, file);
    } catch (error) {
      throw new ExitError(1, `unable to prepare context from STDIN: ${(error as Error).message}\n`);
    }
  }
  if (fs.existsSync(context)) return contextFromDirectory(context, file, stdin);
  if (/^(git@|git:\/\/|github\.com\/|https?:\/\/[^#]*\.git(#|$))/.test(context))
    throw new ExitError(
      1,
      `unable to prepare context: git repositories are not supported as a build context yet: clone ${context} and give the directory\n`,
    );
  if (/^https?:\/\//.test(context)) {
    try {
      return await contextFromUrl(context, file);
    } catch (error) {
      throw new ExitError(1, `unable to prepare context: ${(error as Error).message}\n`);
    }
  }
  throw new ExitError(1, `unable to prepare context: path ${JSON.stringify(context)} not found\n`);
}

/** Passes the context on and tells on stdout how much of it was sent. */
async function* announced(session: Session, source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const quiet = session.flags.bool('quiet');
  const show = (bytes: number, end: string): void => {
    if (!quiet) session.print(`Sending build context to Docker daemon ${humanSize(bytes).padStart(8)}${end}`);
  };
  let bytes = 0;
  let shown = 0;
  for await (const chunk of source) {
    bytes += chunk.length;
    yield chunk;
    if (process.stdout.isTTY && bytes - shown >= PROGRESS_STEP_BYTES) {
      shown = bytes;
      show(bytes, '\r');
    }
  }
  show(bytes, '\r\r\n');
}

function checkTags(session: Session): void {
  for (const tag of session.flags.list('tag')) {
    try {
      parseReference(tag);
    } catch (error) {
      throw flagError(session.command, `invalid argument "${tag}" for "-t, --tag" flag: ${(error as Error).message}`);
    }
  }
}

async function registryConfig(session: Session): Promise<Record<string, string>> {
  // What cannot be read is left out; the build fails by itself if it needs it.
  const all: Record<string, Credentials> = await allCredentials(session).catch(() => ({}));
  return { 'X-Registry-Config': encodeCredentials(all) };
}

function buildQuery(
  session: Session,
  dockerfile: string,
): Record<string, string | number | boolean | readonly string[] | undefined> {
  const { flags } = session;
  const limits = resourceLimits(flags);
  return {
    t: flags.list('tag'),
    dockerfile,
    q: flags.bool('quiet') || undefined,
    nocache: flags.bool('no-cache') || undefined,
    // Compat: intermediate containers go unless told otherwise.
    rm: flags.bool('rm', true) ? undefined : false,
    forcerm: flags.bool('force-rm') || undefined,
    pull: flags.bool('pull') || undefined,
    squash: flags.bool('squash') || undefined,
    isolation: flags.text('isolation') || undefined,
    memory: Number(limits['Memory']) || undefined,
    memswap: Number(limits['MemorySwap']) || undefined,
    cpushares: Number(limits['CpuShares']) || undefined,
    cpuperiod: Number(limits['CpuPeriod']) || undefined,
    cpuquota: Number(limits['CpuQuota']) || undefined,
    cpusetcpus: String(limits['CpusetCpus']) || undefined,
    cpusetmems: String(limits['CpusetMems']) || undefined,
    cgroupparent: flags.text('cgroup-parent') || undefined,
    shmsize: flags.number('shm-size') || undefined,
    ulimits: flags.list('ulimit').length === 0 ? undefined : JSON.stringify(flags.list('ulimit').map(parseUlimit)),
    buildargs: JSON.stringify(buildArguments(flags.list('build-arg'))),
    labels: JSON.stringify(keyValues(flags.list('label'))),
    cachefrom: JSON.stringify(flags.list('cache-from')),
    securityopt: flags.list('security-opt'),
    networkmode: flags.text('network') || undefined,
    extrahosts: flags.list('add-host').join(',') || undefined,
    target: flags.text('target') || undefined,
    platform: (flags.text('platform', process.env['DOCKER_DEFAULT_PLATFORM'] ?? '') || undefined)?.toLowerCase(),
    version: '1',
  };
}

/** `build`. */
export async function buildImage(session: Session): Promise<number> {
  const { flags } = session;
  const { Readable, Writable } = process.getBuiltinModule('node:stream');
  checkTags(session);
  refuseContentTrust(flags);
  const idFile = flags.text('iidfile');
  if (idFile !== '') fs.rmSync(idFile, { force: true });
  const context = await prepareContext(session);
  const api = await session.connect();
  await api.negotiate();
  let quietOutput = '';
  const output = flags.bool('quiet')
    ? new Writable({
        write: (chunk, _encoding, done) => {
          quietOutput += String(chunk);
          done();
        },
      })
    : process.stdout;
  const response = await api.open('POST', '/build', {
    query: buildQuery(session, context.dockerfile),
    stream: Readable.from(announced(session, context.tar), { objectMode: false }),
    headers: { 'Content-Type': 'application/x-tar', ...(await registryConfig(session)) },
  });
  let id = '';
  const onAux = (aux: Record<string, unknown>): void => {
    id = String(aux['ID'] ?? id);
  };
  try {
    await renderProgress(jsonLines(response), output, { onAux, exitCodes: true });
  } catch (error) {
    // What was held back tells which step failed.
    process.stderr.write(quietOutput);
    throw error;
  }
  session.print(quietOutput);
  if (idFile === '') return 0;
  if (id === '' && quietOutput === '')
    throw new ExitError(1, `Server did not provide an image ID. Cannot write ${idFile}\n`);
  fs.writeFileSync(idFile, id || quietOutput.trim());
  return 0;
}
