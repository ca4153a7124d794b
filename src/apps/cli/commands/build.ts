/** `build` with the classic builder: the context as a tar, the Dockerfile's path, the daemon's messages. */

import { ignoreRules, packPath } from '../archive/pack.ts';
import { keyValues, resourceLimits } from '../args/container-options.ts';
import { ExitError } from '../args/usage-error.ts';
import { jsonLines } from '../connection/api.ts';
import type { Session } from '../session.ts';
import { renderProgress } from '../terminal/progress.ts';
import { humanSize } from '../text/go-text.ts';

const fs = process.getBuiltinModule('node:fs');
const nodePath = process.getBuiltinModule('node:path');

function readIgnoreFile(context: string, dockerfile: string): string {
  for (const path of [`${context}/${dockerfile}.dockerignore`, `${context}/.dockerignore`]) {
    if (fs.existsSync(path)) return fs.readFileSync(path, 'utf8');
  }
  return '';
}

/** The Dockerfile's name inside the context. */
function dockerfileIn(context: string, given: string): string {
  const path = given === '' ? nodePath.join(context, 'Dockerfile') : nodePath.resolve(given);
  const relative = nodePath.relative(
    fs.realpathSync(context),
    fs.existsSync(path) ? fs.realpathSync(path) : nodePath.resolve(path),
  );
  if (relative.startsWith('..'))
    throw new ExitError(1, `unable to prepare context: the Dockerfile (${given}) must be within the build context\n`);
  if (!fs.existsSync(path))
    throw new ExitError(
      1,
      `unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat ${path}: no such file or directory\n`,
    );
  return relative;
}

/** Build arguments; a bare name takes the caller's value. */
function buildArguments(values: readonly string[]): Record<string, string | null> {
  const result: Record<string, string | null> = {};
  for (const value of values) {
    const [name = '', text] = value.split(/=(.*)/s);
    result[name] = text ?? process.env[name] ?? null;
  }
  return result;
}

async function* counted(source: AsyncIterable<Buffer>, onEnd: (bytes: number) => void): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const chunk of source) {
    bytes += chunk.length;
    yield chunk;
  }
  onEnd(bytes);
}

/** `build`. */
export async function buildImage(session: Session): Promise<number> {
  const { flags, args } = session;
  const { Readable, Writable } = process.getBuiltinModule('node:stream');
  const context = args[0] ?? '';
  let stream: import('node:stream').Readable = process.stdin;
  let dockerfile = flags.text('file') || 'Dockerfile';
  let contextBytes = 0;
  if (context !== '-') {
    if (!fs.statSync(context, { throwIfNoEntry: false })?.isDirectory())
      throw new ExitError(1, `unable to prepare context: path ${JSON.stringify(context)} not found\n`);
    const root = nodePath.resolve(context);
    dockerfile = dockerfileIn(root, flags.text('file'));
    const rules = ignoreRules(readIgnoreFile(root, dockerfile));
    // Compat: the Dockerfile and the ignore file are sent even when they are ignored.
    const excludes: typeof rules = (path, isDirectory) =>
      path === dockerfile || path === '.dockerignore' ? 'keep' : rules(path, isDirectory);
    stream = Readable.from(
      counted(packPath(root, '', { excludes }), (bytes) => {
        contextBytes = bytes;
      }),
      { objectMode: false },
    );
  }
  const api = await session.connect();
  await api.negotiate();
  const limits = resourceLimits(flags);
  const response = await api.open('POST', '/build', {
    query: {
      t: flags.list('tag'),
      dockerfile,
      q: flags.bool('quiet') || undefined,
      nocache: flags.bool('no-cache') || undefined,
      rm: flags.bool('rm', true),
      forcerm: flags.bool('force-rm') || undefined,
      pull: flags.bool('pull') || undefined,
      memory: Number(limits['Memory']) || undefined,
      memswap: Number(limits['MemorySwap']) || undefined,
      cpushares: Number(limits['CpuShares']) || undefined,
      cpusetcpus: String(limits['CpusetCpus']) || undefined,
      shmsize: flags.number('shm-size') || undefined,
      buildargs: JSON.stringify(buildArguments(flags.list('build-arg'))),
      labels: JSON.stringify(keyValues(flags.list('label'))),
      cachefrom: JSON.stringify(flags.list('cache-from')),
      networkmode: flags.text('network') || undefined,
      extrahosts: flags.list('add-host').join(',') || undefined,
      target: flags.text('target') || undefined,
      platform: flags.text('platform') || undefined,
      version: '1',
    },
    stream,
    headers: { 'Content-Type': 'application/x-tar' },
  });
  if (context !== '-' && !flags.bool('quiet'))
    session.print(`Sending build context to Docker daemon  ${humanSize(contextBytes)}\n`);
  let id = '';
  const output = flags.bool('quiet')
    ? new Writable({
        write: (chunk, _encoding, done) => {
          id = String(chunk).trim() || id;
          done();
        },
      })
    : process.stdout;
  await renderProgress(jsonLines(response), output, (aux) => {
    id = String(aux['ID'] ?? id);
  });
  if (flags.bool('quiet')) session.print(`${id}\n`);
  const file = flags.text('iidfile');
  if (file !== '') fs.writeFileSync(file, id);
  return 0;
}
