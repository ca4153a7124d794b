/**
 * Holds the shape of the source: imports go down the layer table only, services meet through contracts,
 * files say what they own and stay small.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';

/** Top to bottom; a layer may import itself and what stands below. */
const LAYERS = ['apps', 'client', 'engine', 'services', 'system', 'types', 'wire'];
const MAX_FILE_LINES = 500;

/** Files allowed to be longer, each with its reason. */
const LONG_FILES: Readonly<Record<string, string>> = {
  'src/wire/engine-schema.ts': 'generated',
  'src/wire/engine.ts': 'generated from the OpenAPI',
  'src/apps/cli/commands-data.ts': 'generated from the command table',
};

const sources: readonly string[] = globSync('src/**/*.ts').toSorted();
const ours: readonly string[] = [...sources, ...globSync(['test/**/*.ts', 'bench/**/*.ts', 'dev-tools/**/*.ts'])];

interface Import {
  readonly from: string;
  readonly to: string;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(file, 'utf8');
  const found = text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^;'"]*?from\s*'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/g);
  const targets: Import[] = [];
  for (const match of found) {
    const target = match[1] ?? match[2] ?? '';
    if (target.startsWith('#')) targets.push({ from: file, to: join('src', target.slice(1)) });
    else if (target.startsWith('.')) targets.push({ from: file, to: normalize(join(dirname(file), target)) });
  }
  return targets;
}

const layerOf = (path: string): number => LAYERS.indexOf(path.split('/')[1] ?? '');
const allImports: readonly Import[] = sources.flatMap(importsOf);

test('the layer table is alphabetical, as the tree shows it', () => {
  assert.deepEqual(LAYERS, LAYERS.toSorted());
});

test('imports go down only', () => {
  const wrong = allImports.filter(({ from, to }) => layerOf(to) < layerOf(from));
  assert.deepEqual(wrong, []);
});

test('one service reaches another only through its contract', () => {
  const wrong = allImports.filter(({ from, to }) => {
    if (from.endsWith('.test.ts')) return false;
    const [, layer, service] = to.split('/');
    const [, fromLayer, fromService] = from.split('/');
    if (layer !== 'services' || fromLayer !== 'services' || service === fromService) return false;
    return !/\/contract\.ts$/.test(to);
  });
  assert.deepEqual(wrong, []);
});

test('other layers are imported by their # name', () => {
  const wrong = allImports.filter(({ from, to }) => {
    const text = readFileSync(from, 'utf8');
    return (
      layerOf(from) !== layerOf(to) &&
      new RegExp(`from '\\.\\.?/[^']*${to.split('/').at(-1)}'`).test(text) &&
      !text.includes(`'#${to.slice(4)}'`)
    );
  });
  assert.deepEqual(wrong, []);
});

test('every imported file exists', () => {
  const known = new Set([...sources, ...globSync('src/**/*.json')]);
  assert.deepEqual(
    allImports.filter(({ to }) => !known.has(to)),
    [],
  );
});

test('a file opens by saying what it owns', () => {
  // Tests speak through their names.
  const wrong = ours.filter(
    (file) => !file.endsWith('.test.ts') && !/^(#!.*\n)?(\/\*\*|\/\/)/.test(readFileSync(file, 'utf8')),
  );
  assert.deepEqual(wrong, []);
});

test('files stay small', () => {
  const wrong = ours.filter((file) => {
    if (LONG_FILES[file] !== undefined || file.endsWith('.test.ts')) return false;
    return readFileSync(file, 'utf8').split('\n').length > MAX_FILE_LINES;
  });
  assert.deepEqual(wrong, []);
});

test('nothing depends on the machine it was written on', () => {
  const pattern = new RegExp(['/wor', 'k/(main|shared)|/tmp/', 'brief|/home/[a-z]+/'].join(''));
  assert.deepEqual(
    ours.filter((file) => pattern.test(readFileSync(file, 'utf8'))),
    [],
  );
});

test('no default exports, enums or drop-all names', () => {
  const names = /\/(util|utils|helper|helpers|common|manager|misc)(\.ts|\/)/;
  assert.deepEqual(
    ours.filter((file) => names.test(file)),
    [],
  );
  assert.deepEqual(
    sources.filter((file) => /^export default /m.test(readFileSync(file, 'utf8'))),
    [],
  );
});
