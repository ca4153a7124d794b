import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDockerfile, parseJsonForm, parsePairs } from './dockerfile.ts';
import { expandWord, expandWords } from './expand.ts';
import { compileGoPattern } from './go-match.ts';
import { parseIgnore } from './ignore.ts';

test('continuation lines join, comments inside them vanish, and lines are counted', () => {
  const file = parseDockerfile('# c\nFROM x\n\nRUN a && \\\n  # note\n  b\nCOPY --from=y --chown="1:2" a b\n');
  assert.deepEqual(
    file.instructions.map(({ name, rest, flags, line }) => ({ name, rest, flags, line })),
    [
      { name: 'from', rest: 'x', flags: [], line: 2 },
      { name: 'run', rest: 'a &&   b', flags: [], line: 4 },
      { name: 'copy', rest: 'a b', flags: ['from=y', 'chown=1:2'], line: 7 },
    ],
  );
});

test('the escape directive changes continuation', () => {
  const file = parseDockerfile('# escape=`\nFROM x\nRUN a `\nb\\\n');
  assert.equal(file.instructions[1]?.rest, 'a b\\');
});

test('here-documents belong to their instruction', () => {
  const file = parseDockerfile('FROM x\nCOPY <<A <<-"B" /d/\nhello $x\nA\n\tkept\n\tB\nRUN true\n');
  assert.deepEqual(file.instructions[1]?.heredocs, [
    { name: 'A', content: 'hello $x\n', expand: true },
    { name: 'B', content: 'kept\n', expand: false },
  ]);
  assert.equal(file.instructions[2]?.name, 'run');
  assert.throws(() => parseDockerfile('FROM x\nRUN <<E\nx\n'), /unterminated heredoc/);
});

test('errors name the line', () => {
  assert.throws(() => parseDockerfile('FROM x\nFOO bar\n'), {
    message: 'dockerfile parse error on line 2: unknown instruction: FOO',
    kind: 'invalid',
  });
  assert.throws(() => parseDockerfile('# only\n'), { message: 'file with no instructions' });
  assert.throws(() => parsePairs('a=b c', { name: 'ENV', escape: '\\', line: 3 }), {
    message: 'Syntax error - can\'t find = in "c". Must be of the form: name=value',
  });
});

test('exec form needs a JSON array of strings', () => {
  assert.deepEqual(parseJsonForm('["a", "b"]'), ['a', 'b']);
  assert.equal(parseJsonForm("['a']"), undefined);
  assert.throws(() => parseJsonForm('["a", 1]'), /arrays must be comprised of strings only/);
});

test('expansion follows the table of the Dockerfile reference', () => {
  const variables = new Map([
    ['a', 'one'],
    ['e', ''],
    ['p', 'x/y/z'],
  ]);
  for (const [input, output] of [
    ['$a-${a}', 'one-one'],
    ['${u:-w}${u-w}${e:-w}${e-w}', 'www'],
    ['${a:+w}${e:+w}${e+w}', 'ww'],
    ['\'$a\'"$a"', '$aone'],
    ['\\$a', '$a'],
    ['${p#*/}|${p##*/}', 'y/z|z'],
    ['${p%/*}|${p%%/*}', 'x/y|x'],
    ['${p/\\//-}', 'x-y/z'],
    ['${u:-$a}', 'one'],
    ['a$', 'a$'],
  ] as const) {
    assert.equal(expandWord(input, '\\', variables), output, input);
  }
  assert.deepEqual(expandWords('80 "8 1" $a', '\\', variables), ['80', '8 1', 'one']);
  assert.throws(() => expandWord('${}', '\\', variables), /bad substitution/);
  assert.throws(() => expandWord('${a', '\\', variables), /missing '}'/);
  assert.throws(() => expandWord('${u:?}', '\\', variables), { message: 'u: is not allowed to be unset' });
});

test('Go patterns do not cross slashes', () => {
  assert.ok(compileGoPattern('*.js')('a.js'));
  assert.ok(!compileGoPattern('*.js')('d/a.js'));
  assert.ok(compileGoPattern('[a-c]?')('b/'.replace('/', 'x')));
  assert.ok(!compileGoPattern('[^a]')('a'));
  assert.throws(() => compileGoPattern('[a'), /syntax error in pattern/);
});

test('the last matching ignore line wins and covers what lies below', () => {
  const rules = parseIgnore('# c\n*.md\n!README.md\nnode_modules\n**/tmp\n/build/\n');
  for (const path of ['a.md', 'node_modules/x/y', 'a/b/tmp', 'tmp/z', 'build/out'])
    assert.ok(rules.ignores(path), path);
  for (const path of ['README.md', 'd/a.md', 'src/node_modules', 'temporary']) assert.ok(!rules.ignores(path), path);
  assert.throws(() => parseIgnore('!'), /illegal exclusion pattern/);
});

test('patterns match as the regular expressions they stand for', () => {
  const cases: readonly (readonly [pattern: string, expression: RegExp])[] = [
    ['a*b*c', /^a[^/]*b[^/]*c(?:\/.*)?$/s],
    ['**/x*', /^(?:.*\/)?x[^/]*(?:\/.*)?$/s],
    ['a/**', /^a\/.*(?:\/.*)?$/s],
    ['a/**/b', /^a\/(?:.*\/)?b(?:\/.*)?$/s],
    ['a**b', /^a(?:.*\/)?b(?:\/.*)?$/s],
    ['?[^b-c]', /^[^/][^b-c](?:\/.*)?$/s],
    ['\\*[b-a]', /^\*(?!)/s],
  ];
  const words = ['', 'a', 'b', 'c', 'x', 'xa', 'ab', 'abc', 'acbc', '*a', '*b', '\u{1f600}b', 'a\nb'];
  const paths = words.flatMap((one) => words.flatMap((two) => [one, `${one}/${two}`, `a/${one}/${two}`, one + two]));
  for (const [pattern, expression] of cases) {
    const rules = parseIgnore(pattern);
    const unicode = new RegExp(expression.source, 'su');
    for (const path of paths) assert.equal(rules.ignores(path), unicode.test(path), `${pattern} on ${path}`);
  }
});

test('a pattern made to backtrack is answered at once', { timeout: 20_000 }, () => {
  const pattern = `${'*a'.repeat(2000)}b`;
  const path = 'a'.repeat(4000);
  const started = performance.now();
  assert.equal(compileGoPattern(pattern)(path), false);
  assert.equal(parseIgnore(`${'**a'.repeat(1000)}b`).ignores(path), false);
  assert.ok(performance.now() - started < 10_000);
  assert.throws(() => compileGoPattern('*a'.repeat(2000))('a'.repeat(1_000_000)), /too long/);
});
