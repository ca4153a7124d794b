/** Bundles the CLI and the daemon into dist/ with code splitting, so that each command stays lazily loaded. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const entries: Record<string, string> = { gantry: `${root}src/apps/cli/main.ts` };
if (existsSync(`${root}src/apps/daemon/main.ts`)) entries['gantryd'] = `${root}src/apps/daemon/main.ts`;

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
