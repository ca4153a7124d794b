import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findCommand } from './command-table.ts';
import { parseFlags } from './parse-flags.ts';
import { planPorts } from './ports.ts';
import { parseMount, parseUlimit } from './structured-values.ts';
import { arityError, ExitError } from './usage-error.ts';

function command(path: string): NonNullable<ReturnType<typeof findCommand>> {
  const found = findCommand(path);
  assert.ok(found, path);
  return found;
}

function failure(path: string, words: string[]): ExitError {
  try {
    parseFlags(command(path), words);
  } catch (error) {
    if (error instanceof ExitError) return error;
    throw error;
  }
  throw new Error('parsing succeeded');
}

test('grouped shorthands, attached values and repeated lists are read as pflag reads them', () => {
  const flags = parseFlags(command('run'), [
    '-itd',
    '-eA=1',
    '-e',
    'B=2',
    '--memory=64m',
    '--rm=false',
    'img',
    '-x',
    '--rm',
  ]);
  assert.equal(flags.bool('interactive') && flags.bool('tty') && flags.bool('detach'), true);
  assert.deepEqual(flags.list('env'), ['A=1', 'B=2']);
  assert.equal(flags.number('memory'), 64 * 1024 * 1024);
  assert.equal(flags.bool('rm', true), false);
  assert.deepEqual(flags.args, ['img', '-x', '--rm']);
});

test('options after arguments are read where docker allows it', () => {
  const flags = parseFlags(command('rm'), ['a', '-f', 'b', '--', '-v']);
  assert.equal(flags.bool('force'), true);
  assert.deepEqual(flags.args, ['a', 'b', '-v']);
});

test('an unknown flag ends with 125 and the usage line of the command as typed', () => {
  const error = failure('run', ['--foo']);
  assert.equal(error.code, 125);
  assert.equal(
    error.message,
    "unknown flag: --foo\n\nUsage:  gantry run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'gantry run --help' for more information\n",
  );
});

test('wrong values are reported with the texts of docker 28.2', () => {
  const cases: [string[], string][] = [
    [['-z', 'x'], "unknown shorthand flag: 'z' in -z"],
    [['-e'], "flag needs an argument: 'e' in -e"],
    [['--name'], 'flag needs an argument: --name'],
    [['--memory', '12zz', 'x'], 'invalid argument "12zz" for "-m, --memory" flag: invalid suffix: \'zz\''],
    [['--shm-size', 'x', 'b'], 'invalid argument "x" for "--shm-size" flag: invalid size: \'x\''],
    [['--cpus', 'abc', 'x'], 'invalid argument "abc" for "--cpus" flag: failed to parse abc as a rational number'],
    [['-d=xx', 'x'], 'invalid argument "xx" for "-d, --detach" flag: strconv.ParseBool: parsing "xx": invalid syntax'],
    [
      ['--pids-limit', 'x', 'b'],
      'invalid argument "x" for "--pids-limit" flag: strconv.ParseInt: parsing "x": invalid syntax',
    ],
    [['--mount', 'type=foo', 'x'], 'invalid argument "type=foo" for "--mount" flag: target is required'],
    [['--ulimit', 'x', 'y'], 'invalid argument "x" for "--ulimit" flag: invalid ulimit argument: x'],
    [['--add-host', 'foo', 'b'], 'invalid argument "foo" for "--add-host" flag: bad format for add-host: "foo"'],
    [
      ['--gpus', 'x:y', 'b'],
      'invalid argument "x:y" for "--gpus" flag: invalid count (x:y): value must be either "all" or an integer: invalid syntax',
    ],
  ];
  for (const [words, text] of cases) assert.equal(failure('run', words).message.split('\n')[0], text);
});

test('argument counts are refused with docker words', () => {
  assert.match(
    arityError(command('commit'), 0)?.message ?? '',
    /^gantry: 'gantry commit' requires at least 1 and at most 2 arguments\n/,
  );
  assert.match(arityError(command('ps'), 1)?.message ?? '', /^gantry: 'gantry ps' accepts no arguments\n/);
  assert.match(arityError(command('tag'), 1)?.message ?? '', /^gantry: 'gantry tag' requires 2 arguments\n/);
  assert.match(
    arityError(command('rm'), 0)?.message ?? '',
    /requires at least 1 argument\n[\s\S]*See 'gantry rm --help'/,
  );
  assert.equal(arityError(command('exec'), 3), undefined);
});

test('published ports expand ranges and keep addresses', () => {
  assert.deepEqual(planPorts(['127.0.0.1:8000-8001:80-81/udp', '[::1]::53', '9000-9005:90'], []).bindings, {
    '80/udp': [{ HostIp: '127.0.0.1', HostPort: '8000' }],
    '81/udp': [{ HostIp: '127.0.0.1', HostPort: '8001' }],
    '53/tcp': [{ HostIp: '::1', HostPort: '' }],
    '90/tcp': [{ HostIp: '', HostPort: '9000-9005' }],
  });
  // docker's words depend on the library its client was built with; these are those of its own 28.2 build.
  for (const [port, message] of [
    ['80:80:80:80:x', 'invalid IP address: 80:80:80'],
    ['80:80:80:80', 'invalid IP address: 80:80'],
    ['x', 'invalid containerPort: x'],
    ['99999:80', 'invalid hostPort: 99999'],
  ] as const)
    assert.throws(() => planPorts([port], []), { message });
});

test('mounts and ulimits become API objects', () => {
  assert.deepEqual(parseMount('type=bind,src=/a,dst=/b,ro'), {
    Type: 'bind',
    Source: '/a',
    Target: '/b',
    ReadOnly: true,
  });
  assert.throws(() => parseMount('type=bind,target=/b,volume-nocopy'), {
    message: "cannot mix 'volume-*' options with mount type 'bind'",
  });
  assert.deepEqual(parseUlimit('nofile=10:20'), { Name: 'nofile', Soft: 10, Hard: 20 });
});
