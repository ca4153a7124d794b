/**
 * `./dev daemon`: a daemon in the foreground with roots, socket and bridge of its own (GANTRY_DEV_ROOT,
 * default in the temporary directory), beside whatever else runs on the machine. Flags are passed on.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const BRIDGE = 'gantrydev0';
const BRIDGE_ADDRESS = '10.213.0.1/24';

const state = process.env['GANTRY_DEV_ROOT'] ?? join(tmpdir(), 'gantry-dev');
mkdirSync(state, { recursive: true });
if (!existsSync(`/sys/class/net/${BRIDGE}`)) {
  execFileSync('ip', ['link', 'add', BRIDGE, 'type', 'bridge']);
  execFileSync('ip', ['addr', 'add', BRIDGE_ADDRESS, 'dev', BRIDGE]);
  execFileSync('ip', ['link', 'set', BRIDGE, 'up']);
}
process.stdout.write(`DOCKER_HOST=unix://${state}/gantry.sock\n`);
const flags = ['--data-root', join(state, 'data'), '--exec-root', join(state, 'exec'), '-p', join(state, 'pid')];
const child = spawn(
  resolve(import.meta.dirname, '../bin/gantryd'),
  [...flags, '-H', `unix://${state}/gantry.sock`, '-b', BRIDGE, ...process.argv.slice(2)],
  { stdio: 'inherit' },
);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => {
  execFileSync('ip', ['link', 'del', BRIDGE]);
  process.exit(signal === null ? (code ?? 1) : 1);
});
