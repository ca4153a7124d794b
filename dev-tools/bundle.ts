/** Bundles the CLI and the daemon into dist/ with code splitting, so that each command stays lazily loaded. */
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const entries: Record<string, string> = {
  gantry: `${root}src/apps/cli/main.ts`,
  gantryd: `${root}src/apps/daemon/main.ts`,
  // Worker threads start from a file of their own.
  'view-worker': `${root}src/services/archive/view-worker.ts`,
};

await build({
  entryPoints: entries,
  outdir: `${root}dist`,
  outExtension: { '.js': '.mjs' },
  chunkNames: 'chunks/[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node26',
  external: ['koffi'],
  minifySyntax: true,
  minifyWhitespace: true,
  logLevel: 'warning',
});
