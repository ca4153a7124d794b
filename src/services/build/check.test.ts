import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readDockerfile } from './check.ts';

test('what is wrong before any step is refused with its line or its file', () => {
  for (const [text, message] of [
    [
      'COPY a',
      'dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined',
    ],
    ['ENV a', 'failed to parse D: ENV must have two arguments'],
    ['ENV', 'dockerfile parse error on line 2: ENV requires at least one argument'],
    ['LABEL a', 'failed to parse D: LABEL must have two arguments'],
    ['ENV =x', 'dockerfile parse error on line 2: ENV names can not be blank'],
    ['WORKDIR', 'dockerfile parse error on line 2: WORKDIR requires exactly one argument'],
    ['SHELL foo', 'dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form'],
    ['ONBUILD FROM x', "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger"],
    ['HEALTHCHECK --interval=x CMD y', 'dockerfile parse error on line 2: time: invalid duration "x"'],
    ['HEALTHCHECK FOO', 'dockerfile parse error on line 2: Unknown type "FOO" in HEALTHCHECK (try CMD)'],
    ['VOLUME', 'dockerfile parse error on line 2: VOLUME requires at least one argument'],
    ['ARG', 'dockerfile parse error on line 2: ARG requires at least one argument'],
    ['USER', 'dockerfile parse error on line 2: USER requires exactly one argument'],
    ['FROM --foo=1 x', 'dockerfile parse error on line 2: unknown flag: --foo'],
    ['FOO', 'dockerfile parse error on line 2: unknown instruction: FOO'],
  ]) {
    assert.throws(() => readDockerfile(`FROM x\n${text}\n`, 'D'), { message, kind: 'invalid' }, text);
  }
});

test('what a step alone can judge is left to it', () => {
  const text = 'FROM x\nSTOPSIGNAL foo\nEXPOSE foo\nRUN\nCMD\nCOPY --link --chmod=1 a b\nRUN --mount=type=cache x\n';
  assert.equal(readDockerfile(text, 'D').instructions.length, 7);
});
