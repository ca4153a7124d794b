/**
 * Starts gantryd in the background when its default socket does not answer and this user is root.
 * The daemon is detached, so it outlives the command; its output goes to a file in its exec root.
 */
import { type Api, ApiError } from './api.ts';
import { launcherPath } from './launcher.ts';

const EXEC_ROOT = '/run/gantry';
/** How long a starting daemon may take to answer; a first start creates directories and a database. */
const START_TIMEOUT_MS = 30_000;
const POLL_INTERVAL_MS = 25;

async function answers(api: Api): Promise<boolean> {
  const net = process.getBuiltinModule('node:net');
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = net.connect(api.endpoint.host.slice('unix://'.length));
  socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  const connected = await promise;
  socket.destroy();
  return connected;
}

/** Makes sure that a daemon listens on the default socket. */
export async function ensureDaemon(api: Api): Promise<void> {
  if (await answers(api)) return;
  const path = launcherPath('gantryd');
  if (process.getuid?.() !== 0 || path === undefined) return;
  const fs = process.getBuiltinModule('node:fs');
  fs.mkdirSync(EXEC_ROOT, { recursive: true, mode: 0o711 });
  const log = fs.openSync(`${EXEC_ROOT}/gantryd.log`, 'a', 0o600);
  const child = process
    .getBuiltinModule('node:child_process')
    .spawn(path, ['-H', api.endpoint.host], { detached: true, stdio: ['ignore', log, log] });
  fs.closeSync(log);
  let ended = false;
  child.once('exit', () => {
    ended = true;
  });
  child.unref();
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (!ended && Date.now() < deadline) {
    if (await answers(api)) return;
    await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL_MS));
  }
  throw new ApiError(
    0,
    `Cannot connect to the Docker daemon at ${api.endpoint.host}. Is the docker daemon running?\nThe daemon did not start; see ${EXEC_ROOT}/gantryd.log`,
  );
}
