/**
 * `./dev check`: types, lint and format, layers, freshness of generated code, unused code.
 * All run at once; each prints only when it fails.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';

interface Check {
  readonly name: string;
  readonly command: readonly string[];
}

/** A generator run with --check exits 1 when what it would write differs from what is there. */
const GENERATORS: readonly string[] = ['dev-tools/generate-wire.ts', 'dev-tools/generate-cli.ts'];

const checks: readonly Check[] = [
  { name: 'types', command: ['node_modules/.bin/tsc', '-p', '.'] },
  { name: 'lint and format', command: ['node_modules/.bin/biome', 'check', '--error-on-warnings', '.'] },
  { name: 'layers', command: [process.execPath, '--test', '--test-reporter=dot', 'test/static/layers.test.ts'] },
  { name: 'unused code', command: ['node_modules/.bin/knip'] },
  ...GENERATORS.filter((file) => existsSync(file)).map((file) => ({
    name: `fresh: ${file}`,
    command: [process.execPath, file, '--check'],
  })),
];

async function passes(check: Check): Promise<boolean> {
  const begun = performance.now();
  const [file = '', ...args] = check.command;
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += String(chunk)));
  const [code] = await once(child, 'close');
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  process.stdout.write(`${code === 0 ? 'ok  ' : 'FAIL'} ${check.name} (${seconds} s)\n`);
  if (code !== 0) process.stdout.write(`${output}\n`);
  return code === 0;
}

const results = await Promise.all(checks.map(passes));
process.exit(results.every(Boolean) ? 0 : 1);
