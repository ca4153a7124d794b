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
  assert.throws(
    () => parsePairs('a=b c', { name: 'ENV', escape: '\\', line: 3 }),
    /line 3: Syntax error - can't find = in "c"/,
  );
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
