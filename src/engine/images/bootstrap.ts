/**
 * Base images without a registry: `busybox` from the host's static busybox, `debian:{suite}` by debootstrap.
 *
 * The busybox image is reproducible: same binary, same image ID.
 */
import { execFile, spawn } from 'node:child_process';
import { createReadStream, existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { encodeImageConfig } from '#services/images/config.ts';
import type { Image, ImageRunConfig } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';
import { type TarCodec, type TarPiece, writeArchive } from '#services/images/tar-codec.ts';
import { now } from '#system/clock/clock.ts';
import { makeEntry } from '#system/tar/entry.ts';
import { GantryError } from '#types/errors.ts';
import { hostPlatform } from '#types/platform.ts';
import { familiarName, familiarString, parseReference, withDefaultTag } from '#types/reference.ts';
import { importLayer } from './layer.ts';
import type { WriteProgress } from './progress.ts';
import { type EmitEvent, imageAttributes } from './remove.ts';
import { nameImage } from './tag.ts';

const run = promisify(execFile);

export interface BootstrapContext {
  readonly images: ImageStore;
  readonly tar: TarCodec;
  readonly emit: EmitEvent;
  readonly write: WriteProgress;
}

const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const EPOCH = '1970-01-01T00:00:00Z';
/** Output lines of debootstrap kept for its error. */
const KEPT_LINES = 20;

/** Makes `name` from what the host has; names it and returns it. */
export async function bootstrapImage(context: BootstrapContext, name: string, signal?: AbortSignal): Promise<Image> {
  const reference = withDefaultTag(parseReference(name));
  const repository = familiarName(reference);
  const suite = reference.tag ?? 'latest';
  if (repository !== 'busybox' && repository !== 'debian') {
    throw new GantryError(
      'invalid',
      `no recipe for a base image named ${familiarString(reference)}; there are busybox and debian:{suite}`,
    );
  }
  const made = repository === 'busybox' ? await busybox(context, signal) : await debian(context, suite, signal);
  nameImage(context.images, made.id, { reference, emit: context.emit });
  context.emit('image', 'import', made.id, imageAttributes(made, made.id));
  await context.write({ status: `Made ${familiarString(reference)}` });
  await context.write({ status: made.id });
  return context.images.get(made.id) ?? made;
}

async function importRoot(
  context: BootstrapContext,
  tar: AsyncIterable<Buffer>,
  options: { config: ImageRunConfig; created: string; createdBy: string },
  signal?: AbortSignal,
): Promise<Image> {
  const { images } = context;
  using hold = images.hold();
  const layer = await importLayer(tar, { images, tar: context.tar, hold, parent: undefined }, signal);
  const bytes = encodeImageConfig({
    ...hostPlatform(),
    created: options.created,
    config: options.config,
    diffIds: [layer.diffId],
    history: [{ created: options.created, created_by: options.createdBy }],
  });
  return images.create(bytes, {});
}

const PROGRAM_INTERPRETER = 3;

/** Whether a 64-bit little-endian ELF file names no interpreter. */
function isStaticElf(bytes: Buffer): boolean {
  if (bytes.length < 64 || bytes.toString('latin1', 1, 4) !== 'ELF') return false;
  const offset = Number(bytes.readBigUInt64LE(32));
  const size = bytes.readUInt16LE(54);
  const count = bytes.readUInt16LE(56);
  if (offset + size * count > bytes.length) return false;
  for (let index = 0; index < count; index += 1) {
    if (bytes.readUInt32LE(offset + size * index) === PROGRAM_INTERPRETER) return false;
  }
  return true;
}

async function findBusybox(): Promise<string> {
  for (const path of ['/bin/busybox', '/usr/bin/busybox', '/sbin/busybox', '/usr/local/bin/busybox']) {
    if (!existsSync(path)) continue;
    // A dynamically linked busybox would not start in an empty root.
    if (isStaticElf(await readFile(path))) return path;
  }
  throw new GantryError('unavailable', 'no static busybox on this host; install the package busybox-static');
}

async function busybox(context: BootstrapContext, signal?: AbortSignal): Promise<Image> {
  const binary = await findBusybox();
  await context.write({ status: `Packing ${binary}` });
  const { stdout } = await run(binary, ['--list']);
  const applets = stdout.split('\n').filter((line) => line !== '' && line !== 'busybox');
  const sizeBytes = (await stat(binary)).size;
  const text = (path: string, content: string): TarPiece => ({
    entry: makeEntry(path, 'file', { sizeBytes: Buffer.byteLength(content) }),
    content: async function* () {
      yield Buffer.from(content);
    },
  });
  const directory = (path: string, mode = 0o755): TarPiece => ({ entry: makeEntry(path, 'directory', { mode }) });
  const pieces: TarPiece[] = [
    directory('bin'),
    { entry: makeEntry('bin/busybox', 'file', { mode: 0o755, sizeBytes }), content: () => createReadStream(binary) },
    ...applets
      .sort()
      .map((applet) => ({ entry: makeEntry(`bin/${applet}`, 'link', { linkPath: 'bin/busybox', mode: 0o755 }) })),
    directory('dev'),
    directory('etc'),
    text(
      'etc/group',
      'root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\nmail:x:8:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n',
    ),
    text('etc/nsswitch.conf', 'hosts: files dns\n'),
    text(
      'etc/passwd',
      'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\nsys:x:3:3:sys:/dev:/bin/false\nmail:x:8:8:mail:/var/spool/mail:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n',
    ),
    directory('home'),
    directory('lib'),
    directory('proc', 0o555),
    directory('root', 0o700),
    directory('sys', 0o555),
    directory('tmp', 0o1777),
    directory('usr'),
    directory('usr/bin'),
    { entry: makeEntry('usr/bin/env', 'link', { linkPath: 'bin/busybox', mode: 0o755 }) },
    directory('usr/sbin'),
    directory('var'),
    directory('var/spool'),
    directory('var/spool/mail'),
    directory('var/www'),
  ];
  const config = { Env: [PATH], Cmd: ['sh'] };
  return importRoot(
    context,
    writeArchive(context.tar, pieces),
    { config, created: EPOCH, createdBy: 'busybox-static' },
    signal,
  );
}

/** The mirror this host installs from. */
async function debianMirror(): Promise<string> {
  const files = ['/etc/apt/sources.list'];
  for (const file of await readdir('/etc/apt/sources.list.d').catch(() => []))
    files.push(join('/etc/apt/sources.list.d', file));
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => '');
    const match = /^(?:deb\s+(?:\[[^\]]*\]\s+)?|URIs:\s*)(https?:\/\/\S+)/m.exec(text.replace(/^.*security.*$/gm, ''));
    if (match?.[1] !== undefined) return match[1];
  }
  return 'http://deb.debian.org/debian';
}

const EXCLUDED = [
  './var/cache/apt/*',
  './var/lib/apt/lists/*',
  './var/log/*.log',
  './var/log/apt/*',
  './var/cache/debconf/*-old',
  './var/lib/dpkg/*-old',
  './dev/*',
  './proc/*',
  './sys/*',
  './etc/resolv.conf',
  './etc/hostname',
  './etc/machine-id',
];

async function debian(context: BootstrapContext, suite: string, signal?: AbortSignal): Promise<Image> {
  const tool = ['/usr/sbin/debootstrap', '/sbin/debootstrap'].find((path) => existsSync(path));
  if (tool === undefined)
    throw new GantryError('unavailable', 'debootstrap is missing on this host; install the package debootstrap');
  if (!/^[a-z][a-z0-9-]*$/.test(suite)) throw new GantryError('invalid', `invalid suite: ${suite}`);
  const release = suite === 'latest' ? 'stable' : suite;
  const root = await mkdtemp(join(tmpdir(), 'gantry-bootstrap-'));
  try {
    const mirror = await debianMirror();
    await stream(context, { command: tool, arguments: ['--variant=minbase', release, root, mirror] }, signal);
    const packer = spawn(
      'tar',
      [
        '--numeric-owner',
        '--xattrs',
        '--sort=name',
        '--format=posix',
        '--pax-option=delete=atime,delete=ctime',
        ...EXCLUDED.map((path) => `--exclude=${path}`),
        '-C',
        root,
        '-c',
        '.',
      ],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    );
    const ended = new Promise<number>((resolve) => packer.once('close', (code) => resolve(code ?? 1)));
    const checked = async function* (): AsyncGenerator<Buffer> {
      yield* packer.stdout as AsyncIterable<Buffer>;
      if ((await ended) !== 0) throw new GantryError('system', `tar failed while packing ${suite}`);
    };
    await context.write({ status: 'Packing' });
    return await importRoot(
      context,
      checked(),
      { config: { Env: [PATH], Cmd: ['bash'] }, created: now(), createdBy: `debootstrap --variant=minbase ${release}` },
      signal,
    );
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** Runs a tool, passing its lines on as progress. */
async function stream(
  context: BootstrapContext,
  tool: { command: string; arguments: string[] },
  signal?: AbortSignal,
): Promise<void> {
  const child = spawn(tool.command, tool.arguments, {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(signal === undefined ? {} : { signal }),
  });
  const failure = new Promise<Error | undefined>((resolve) => {
    child.once('error', resolve);
    child.once('close', (code) => resolve(code === 0 ? undefined : new Error(`exit status ${code}`)));
  });
  const last: string[] = [];
  const { createInterface } = await import('node:readline');
  child.stderr.resume();
  for await (const line of createInterface({ input: child.stdout })) {
    last.push(line);
    if (last.length > KEPT_LINES) last.shift();
    await context.write({ status: line });
  }
  const error = await failure;
  if (error !== undefined)
    throw new GantryError('system', `debootstrap failed: ${error.message}\n${last.join('\n')}`, { cause: error });
}
