/**
 * `ssh://[user@]host[:port][/socket]`: each connection is one `ssh … docker system dial-stdio`. A private unix socket
 * in front of it lets the client speak HTTP as to any daemon.
 */
import type { Socket } from 'node:net';
import { ExitError } from '../args/usage-error.ts';

const CONNECT_TIMEOUT_SECONDS = 30;
/** What ssh says is shown when the connection fails; more than this is noise. */
const MAX_COMPLAINT_BYTES = 64 * 1024;

function refuse(url: string, why: string): ExitError {
  return new ExitError(
    1,
    `Failed to initialize: unable to resolve docker endpoint: ssh host connection is not valid: ${why}: ${url}\n`,
  );
}

/** The arguments of ssh for an address. */
export function sshArguments(address: string): string[] {
  if (!URL.canParse(address)) throw refuse(address, 'invalid ssh URL');
  const url = new URL(address);
  if (url.password !== '') throw refuse(`ssh://${url.host}`, 'plain-text password is not supported');
  if (url.hostname === '') throw refuse(address, 'no host specified');
  if (url.search !== '') throw refuse(address, 'query parameters are not allowed');
  if (url.hash !== '') throw refuse(address, 'fragments are not allowed');
  // A host that looks like an option must not become one.
  if (url.hostname.startsWith('-')) throw refuse(address, 'invalid host');
  const user = decodeURIComponent(url.username);
  const socket = decodeURIComponent(url.pathname);
  const remote = /[^/]/.test(socket)
    ? ['docker', `--host=unix://${socket}`, 'system', 'dial-stdio']
    : ['docker', 'system', 'dial-stdio'];
  return [
    ...(user === '' ? [] : ['-l', user]),
    ...(url.port === '' ? [] : ['-p', url.port]),
    '-o',
    `ConnectTimeout=${CONNECT_TIMEOUT_SECONDS}`,
    '-T',
    '--',
    url.hostname.replace(/^\[|\]$/g, ''),
    ...remote,
  ];
}

function join(socket: Socket, args: readonly string[]): void {
  const { spawn } = process.getBuiltinModule('node:child_process');
  const child = spawn('ssh', args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let complaint = '';
  let answered = false;
  child.stderr.on('data', (chunk: Buffer) => {
    if (complaint.length < MAX_COMPLAINT_BYTES) complaint += chunk.toString();
  });
  child.stdout.once('data', () => {
    answered = true;
  });
  child.once('error', (error: NodeJS.ErrnoException) => {
    complaint = error.code === 'ENOENT' ? 'exec: "ssh": executable file not found in $PATH\n' : `${error.message}\n`;
  });
  child.once('close', () => {
    if (!answered && complaint !== '') process.stderr.write(complaint);
    socket.destroySoon();
  });
  child.stdin.on('error', () => undefined);
  socket.on('error', () => child.kill()).once('close', () => child.kill());
  // Only the client's end keeps the process: an idle connection must not. The pipes are sockets, whatever their types say.
  for (const end of [socket, child, child.stdin, child.stdout, child.stderr] as { unref?: () => void }[]) end.unref?.();
  socket.pipe(child.stdin);
  child.stdout.pipe(socket, { end: false });
  child.stdout.once('end', () => socket.end());
}

/** Opens the way to a remote daemon; the result is the address to use instead. It is gone with this process. */
export async function openSshTunnel(address: string): Promise<string> {
  const args = sshArguments(address);
  const fs = process.getBuiltinModule('node:fs');
  const { tmpdir } = process.getBuiltinModule('node:os');
  const directory = fs.mkdtempSync(`${tmpdir()}/gantry-ssh-`);
  const path = `${directory}/s`;
  const server = process
    .getBuiltinModule('node:net')
    .createServer({ allowHalfOpen: true }, (socket) => join(socket, args));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject).listen(path, resolve);
  await promise;
  // The tunnel does not keep the process; what goes through it does.
  server.unref();
  process.once('exit', () => fs.rmSync(directory, { recursive: true, force: true }));
  return `unix://${path}`;
}
