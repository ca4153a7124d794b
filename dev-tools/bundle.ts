/**
 * Bundles the CLI and the daemon into `<target>/dist` (default: this tree). The CLI is one CommonJS file, which
 * Node loads faster than modules; parts of it still run only when a command needs them. The daemon is split, so
 * that what is rarely used is loaded late.
 *
 * A bundle is never used from a tree that has `src/` (see bin/), so it cannot hide newer sources.
 */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BuildOptions, build, type Plugin } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));

const COMMON: BuildOptions = {
  bundle: true,
  platform: 'node',
  target: 'node26',
  external: ['koffi'],
  minifySyntax: true,
  minifyWhitespace: true,
  logLevel: 'warning',
};

/**
 * The HTTP client of registries is three times the rest of the CLI together, and few commands need it: it lies in a
 * file of its own. Its names are listed, because Node cannot read them off a bundled CommonJS module.
 */
const HTTP_CLIENT_ENTRY = "export { Agent, ProxyAgent } from 'undici';";
const HTTP_CLIENT_FILE = 'registry-transport.cjs';

const separateHttpClient: Plugin = {
  name: 'separate-http-client',
  setup: (builder) => {
    builder.onResolve({ filter: /^undici$/ }, () => ({ path: `./${HTTP_CLIENT_FILE}`, external: true }));
  },
};

/** Writes `dist/` under `target`. */
export async function bundle(target: string): Promise<void> {
  await build({
    ...COMMON,
    entryPoints: { gantry: `${root}src/apps/cli/main.ts` },
    outdir: resolve(target, 'dist'),
    outExtension: { '.js': '.cjs' },
    format: 'cjs',
    // CommonJS has no import.meta.
    define: { 'import.meta.url': '__bundleUrl' },
    banner: { js: 'const __bundleUrl=require("node:url").pathToFileURL(__filename).href;' },
    plugins: [separateHttpClient],
  });
  await build({
    ...COMMON,
    stdin: { contents: HTTP_CLIENT_ENTRY, resolveDir: root, loader: 'js' },
    outfile: resolve(target, 'dist', HTTP_CLIENT_FILE),
    format: 'cjs',
  });
  await build({
    ...COMMON,
    entryPoints: {
      gantryd: `${root}src/apps/daemon/main.ts`,
      registry: `${root}src/apps/registry/main.ts`,
      // Worker threads start from a file of their own.
      'view-worker': `${root}src/services/archive/view-worker.ts`,
      'bcrypt-worker': `${root}src/services/registry/access/bcrypt-worker.ts`,
      'layer-worker': `${root}src/services/snapshots/layer-worker.ts`,
    },
    outdir: resolve(target, 'dist'),
    outExtension: { '.js': '.mjs' },
    chunkNames: 'chunks/[name]-[hash]',
    splitting: true,
    format: 'esm',
    // Packages written as CommonJS ask for built-in modules with require().
    banner: {
      js: 'import{createRequire as bundleRequire}from"node:module";const require=bundleRequire(import.meta.url);',
    },
  });
}

if (import.meta.main) await bundle(process.argv[2] ?? root);
