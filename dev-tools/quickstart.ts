/**
 * `./dev quickstart`: from nothing to a web page. Starts a daemon with its own roots, socket and bridge, makes a
 * Debian base image with debootstrap, builds examples/node-hello, runs it with a published port, fetches the page,
 * and removes everything again. Each step that fails says what is missing and how to get it.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const HOST_PORT = 49_160;
const BRIDGE = `gantryqs${process.pid % 10_000}`;
const START_TIMEOUT_MS = 20_000;
const PAGE_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 30_000;
const ROOT: string = resolve(import.meta.dirname, '..');

const state: string = mkdtempSync(join(tmpdir(), 'gantry-quickstart-'));
const environment: NodeJS.ProcessEnv = {
  ...process.env,
  DOCKER_HOST: `unix://${state}/gantry.sock`,
  DOCKER_CONFIG: state,
};
let daemon: ChildProcess | undefined;

/** A step failed for a reason the user can do something about. */
class Trouble extends Error {}

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const pause = (milliseconds: number): Promise<void> => new Promise((wake) => setTimeout(wake, milliseconds));

/** Runs our CLI, showing the command and its output. */
function gantry(args: readonly string[], hint: string): string {
  say(`\n$ gantry ${args.join(' ')}`);
  const done = spawnSync(join(ROOT, 'bin/gantry'), args, {
    env: environment,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  process.stdout.write(done.stdout);
  if (done.status !== 0) throw new Trouble(`gantry ${args[0]} ended with ${done.status ?? done.signal}. ${hint}`);
  return done.stdout.trim();
}

async function requirePort(port: number): Promise<void> {
  const server = createServer();
  await new Promise<void>((free, taken) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      taken(new Trouble(`port ${port} is not free (${error.code}): see who has it with "ss -ltnp sport = :${port}"`)),
    );
    server.listen(port, () => server.close(() => free()));
  });
}

/** A free 10.x.y.0/24: not routed anywhere on this machine. */
function freeSubnet(): string {
  const routes = execFileSync('ip', ['-4', 'route', 'show', 'table', 'all'], { encoding: 'utf8' });
  for (let third = 0; third < 256; third += 1) {
    const prefix = `10.212.${(third + process.pid) % 256}`;
    if (!routes.includes(`${prefix}.`)) return prefix;
  }
  throw new Trouble('no free subnet in 10.212.0.0/16');
}

async function startDaemon(): Promise<void> {
  const subnet = freeSubnet();
  execFileSync('ip', ['link', 'add', BRIDGE, 'type', 'bridge']);
  execFileSync('ip', ['addr', 'add', `${subnet}.1/24`, 'dev', BRIDGE]);
  execFileSync('ip', ['link', 'set', BRIDGE, 'up']);
  const roots = ['--data-root', join(state, 'data'), '--exec-root', join(state, 'exec'), '-p', join(state, 'pid')];
  say(`$ gantryd -H ${environment['DOCKER_HOST']} -b ${BRIDGE} ...`);
  daemon = spawn(join(ROOT, 'bin/gantryd'), [...roots, '-H', `unix://${state}/gantry.sock`, '-b', BRIDGE], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  daemon.stderr?.on('data', (chunk) => {
    log = (log + String(chunk)).slice(-20_000);
  });
  const end = performance.now() + START_TIMEOUT_MS;
  while (!existsSync(`${state}/gantry.sock`)) {
    if (daemon.exitCode !== null) throw new Trouble(`the daemon ended at start:\n${log}`);
    if (performance.now() > end) throw new Trouble(`the daemon did not start in ${START_TIMEOUT_MS} ms:\n${log}`);
    await pause(50);
  }
}

/** What the build must know to reach the Debian mirror the way this machine does. */
function buildFlags(): string[] {
  const flags: string[] = [];
  for (const name of ['http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY']) {
    if (process.env[name] !== undefined) flags.push('--build-arg', name);
  }
  const proxy = spawnSync('apt-config', ['shell', 'P', 'Acquire::http::Proxy'], { encoding: 'utf8' }).stdout;
  const configured = /P='([^']+)'/.exec(proxy ?? '')?.[1];
  if (configured !== undefined && process.env['http_proxy'] === undefined) {
    flags.push('--build-arg', `http_proxy=${configured}`);
  }
  // A mirror that only /etc/hosts knows is handed on.
  for (const line of readFileSync('/etc/hosts', 'utf8').split('\n')) {
    const [address, ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
    if (address === undefined || address.startsWith('127.') || address.includes(':')) continue;
    for (const name of names) if (name.endsWith('debian.org')) flags.push('--add-host', `${name}:${address}`);
  }
  return flags;
}

async function fetchPage(): Promise<string> {
  const end = performance.now() + PAGE_TIMEOUT_MS;
  for (;;) {
    try {
      const answer = await fetch(`http://127.0.0.1:${HOST_PORT}/`, { signal: AbortSignal.timeout(2_000) });
      return await answer.text();
    } catch (error) {
      if (performance.now() > end) throw new Trouble(`no page on port ${HOST_PORT}: ${String(error)}`);
      await pause(100);
    }
  }
}

async function tour(): Promise<void> {
  await requirePort(HOST_PORT);
  await startDaemon();
  const mirror = 'It downloads Debian packages: check that "apt-get update" works and deb.debian.org is reachable.';
  gantry(['image', 'bootstrap', 'debian:bookworm'], mirror);
  gantry(['build', ...buildFlags(), '-t', 'me/node-hello', join(ROOT, 'examples/node-hello')], mirror);
  gantry(['run', '--name', 'hello', '-p', `${HOST_PORT}:8080`, '-d', 'me/node-hello'], 'The daemon tells why above.');
  const page = await fetchPage();
  gantry(['ps'], '');
  gantry(['logs', 'hello'], '');
  say(`\n$ curl http://127.0.0.1:${HOST_PORT}/`);
  process.stdout.write(page);
  if (page !== 'Hello world\n') throw new Trouble('the page is not what the application answers');
}

/** Removes whatever exists by now; never throws. */
async function cleanUp(): Promise<void> {
  say('\ncleaning up');
  if (daemon !== undefined && daemon.exitCode === null) {
    spawnSync(join(ROOT, 'bin/gantry'), ['rm', '-f', '-v', 'hello'], { env: environment, stdio: 'ignore' });
    const exited = new Promise<void>((gone) => daemon?.once('exit', () => gone()));
    daemon.kill('SIGTERM');
    const timer = setTimeout(() => daemon?.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await exited;
    clearTimeout(timer);
  }
  spawnSync('ip', ['link', 'del', BRIDGE], { stdio: 'ignore' });
  rmSync(state, { recursive: true, force: true });
}

let code = 0;
try {
  await tour();
} catch (error) {
  code = 1;
  process.stderr.write(`\nquickstart: ${error instanceof Trouble ? error.message : String((error as Error).stack)}\n`);
} finally {
  await cleanUp();
}
if (code === 0) say('done: built, ran, answered, and removed again');
process.exit(code);
