/**
 * Where the API listens: unix sockets, TCP with or without TLS, and sockets passed by systemd (fd://).
 *
 * A unix socket that another daemon answers on is never taken away; a stale one is replaced. Sockets are removed
 * again when the listener closes.
 */
import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import type { Server } from 'node:http';
import { connect, type Server as NetServer } from 'node:net';
import { dirname } from 'node:path';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { errorMessage, GantryError } from '#types/errors.ts';
import { groupId, type ListenAddress } from './listeners-address.ts';

/** First descriptor of systemd's socket activation. */
const LISTEN_FDS_START = 3;
const SOCKET_MODE = 0o660;
/** How long a possibly live daemon may take to accept. */
const PROBE_TIMEOUT_MS = 1000;

export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** Whether clients must show a certificate of `ca`. */
  readonly verify: boolean;
}

export interface ListenOptions {
  /** Group of unix sockets; `isExplicit` makes a missing one an error. */
  readonly group: string;
  readonly isGroupExplicit: boolean;
  readonly tls: TlsFiles | undefined;
  warn(message: string): void;
}

/** One open listener. */
export interface Listener extends AsyncDisposable {
  readonly address: ListenAddress;
  /** The TCP port in use (for port 0). */
  readonly port: number | undefined;
}

/** Opens `address`, handing its connections to `server`. */
export async function listen(address: ListenAddress, server: Server, options: ListenOptions): Promise<Listener> {
  switch (address.protocol) {
    case 'unix':
      return await listenUnix(address, server, options);
    case 'tcp':
      return await listenTcp(address, server, options);
    case 'fd':
      return await listenDescriptors(address, server);
  }
}

async function listening(server: NetServer | Server, start: () => void): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.once('listening', resolve);
  start();
  try {
    await promise;
  } finally {
    server.off('error', reject);
    server.off('listening', resolve);
  }
  server.on('error', () => {});
}

async function closed(server: NetServer | Server): Promise<void> {
  if (!server.listening) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  await promise;
}

type UnixAddress = Extract<ListenAddress, { protocol: 'unix' }>;
type TcpAddress = Extract<ListenAddress, { protocol: 'tcp' }>;
type FdAddress = Extract<ListenAddress, { protocol: 'fd' }>;

async function listenUnix(address: UnixAddress, server: Server, options: ListenOptions): Promise<Listener> {
  mkdirSync(dirname(address.path), { recursive: true, mode: 0o755 });
  await removeStale(address.path);
  const previous = process.umask(0o177);
  try {
    await listening(server, () => server.listen(address.path));
  } catch (error) {
    throw new GantryError('system', `can't create unix socket ${address.path}: ${errorMessage(error)}`, {
      cause: error,
    });
  } finally {
    process.umask(previous);
  }
  const gid = groupId(options.group);
  if (gid === undefined && options.isGroupExplicit) {
    await closed(server);
    throw new GantryError('invalid', `group ${options.group} not found`);
  }
  if (gid === undefined)
    options.warn(`could not change group ${address.path} to ${options.group}: group ${options.group} not found`);
  else chownSync(address.path, 0, gid);
  chmodSync(address.path, SOCKET_MODE);
  return { address, port: undefined, [Symbol.asyncDispose]: () => closed(server) };
}

async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket())
    throw new GantryError('system', `can't create unix socket ${path}: path exists and is not a socket`);
  if (await isAnswered(path)) {
    throw new GantryError('system', `can't create unix socket ${path}: another process is listening on it`);
  }
  rmSync(path, { force: true });
}

async function isAnswered(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(path);
  socket.setTimeout(PROBE_TIMEOUT_MS, () => resolve(true));
  socket.once('connect', () => resolve(true));
  socket.once('error', () => resolve(false));
  const answer = await promise;
  socket.destroy();
  return answer;
}

function tlsOptions(files: TlsFiles): TlsOptions {
  const read = (path: string, what: string): Buffer => {
    try {
      return readFileSync(path);
    } catch (error) {
      throw new GantryError('invalid', `could not read ${what} certificate "${path}": ${errorMessage(error)}`, {
        cause: error,
      });
    }
  };
  const base: TlsOptions = { cert: read(files.cert, 'server'), key: read(files.key, 'key'), minVersion: 'TLSv1.2' };
  if (!files.verify) return base;
  return { ...base, ca: read(files.ca, 'CA'), requestCert: true, rejectUnauthorized: true };
}

async function listenTcp(address: TcpAddress, server: Server, options: ListenOptions): Promise<Listener> {
  const { host, port } = address;
  if (options.tls === undefined) {
    options.warn(
      `Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network. host=tcp://${host}:${port}`,
    );
    await tryListen(address, () => listening(server, () => server.listen({ host, port })));
    return { address, port: portOf(server), [Symbol.asyncDispose]: () => closed(server) };
  }
  // The HTTP server never listens itself: it is fed the decrypted connections.
  const tls = createTlsServer(
    { ...tlsOptions(options.tls), allowHalfOpen: true },
    (socket) => void server.emit('connection', socket),
  );
  tls.on('tlsClientError', (_error, socket) => void socket.destroy());
  await tryListen(address, () => listening(tls, () => tls.listen({ host, port })));
  return { address, port: portOf(tls), [Symbol.asyncDispose]: () => closed(tls) };
}

async function tryListen(address: TcpAddress, start: () => Promise<void>): Promise<void> {
  try {
    await start();
  } catch (error) {
    const text = `failed to load listeners: listen tcp ${address.host}:${address.port}: ${errorMessage(error)}`;
    throw new GantryError('system', text, { cause: error });
  }
}

function portOf(server: NetServer | Server): number | undefined {
  const address = server.address();
  return address !== null && typeof address === 'object' ? address.port : undefined;
}

/** Compat: `fd://` and `fd://*` mean the first passed socket here; `fd://N` a certain one. */
async function listenDescriptors(address: FdAddress, server: Server): Promise<Listener> {
  const count = Number(process.env['LISTEN_FDS'] ?? '0');
  const isOurs = process.env['LISTEN_PID'] === undefined || Number(process.env['LISTEN_PID']) === process.pid;
  if (!isOurs || !Number.isInteger(count) || count <= 0) {
    throw new GantryError(
      'invalid',
      'failed to load listeners: no sockets found via socket activation: make sure the service was started by systemd',
    );
  }
  const fd = address.descriptor ?? LISTEN_FDS_START;
  if (fd < LISTEN_FDS_START || fd >= LISTEN_FDS_START + count) {
    throw new GantryError(
      'invalid',
      `failed to load listeners: failed to parse systemd fd address: should be a number: ${fd}`,
    );
  }
  await listening(server, () => server.listen({ fd }));
  return { address, port: portOf(server), [Symbol.asyncDispose]: () => closed(server) };
}
