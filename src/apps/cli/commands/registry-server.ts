/** `registry serve`, `gc` and `fsck`: this process becomes the registry's own program, which reads the same flags. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Session } from '../session.ts';

/** Buffers of a body live one loop long: a small young heap gives them back early. */
const NODE_FLAGS: readonly string[] = ['--disable-warning=ExperimentalWarning', '--max-semi-space-size=1'];

/** The registry's program: a source, or beside this bundle. */
function programFile(): string {
  const source = fileURLToPath(new URL('../../registry/main.ts', import.meta.url));
  return existsSync(source) ? source : fileURLToPath(new URL('./registry.mjs', import.meta.url));
}

/** Replaces this process, so that signals and the exit code are the registry's. */
export async function runRegistry({ command, globals }: Session): Promise<number> {
  const verb = command.name.split(' ')[1] ?? '';
  const words = globals.args.slice(globals.args.indexOf(verb) + 1);
  const node = process.execPath;
  const args = [node, ...NODE_FLAGS, '--', programFile(), verb, ...words];
  // The replacement of a process is marked experimental; users need not know.
  process.removeAllListeners('warning');
  process.execve?.(node, args, process.env);
  throw new Error('this system cannot replace a process');
}
