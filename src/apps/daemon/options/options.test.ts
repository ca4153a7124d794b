import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type DaemonOptions, readInvocation } from './daemon-options.ts';
import { FLAGS } from './flag-table.ts';
import { helpText } from './help.ts';
import { reloadOptions } from './reload.ts';

/** Options for a command line and the text of a daemon.json. */
function options(argv: readonly string[], file = '{}', environment: Record<string, string> = {}): DaemonOptions {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-options-'));
  const path = join(directory, 'daemon.json');
  try {
    writeFileSync(path, file);
    const invocation = readInvocation(['--config-file', path, ...argv], environment);
    assert.equal(invocation.action, 'run');
    return (invocation as { options: DaemonOptions }).options;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function refusal(argv: readonly string[], file?: string): string {
  try {
    options(argv, file);
  } catch (error) {
    assert.ok(error instanceof Error);
    return error.message.replace(/with file \S+:/, 'with file F:');
  }
  throw new Error(`${argv.join(' ')} was accepted`);
}

test('flags are written in every way pflag knows', () => {
  const read = options([
    '-D',
    '-Htcp://127.0.0.1:1',
    '-H',
    'unix:///a',
    '--host=fd://',
    '-l=warn',
    '--icc=false',
    '--mtu',
    '1400',
    '-Ggroup',
    '-b=none',
  ]);
  assert.deepEqual(read.hosts, [
    { protocol: 'tcp', host: '127.0.0.1', port: 1 },
    { protocol: 'unix', path: '/a' },
    { protocol: 'fd', descriptor: undefined },
  ]);
  assert.deepEqual(
    [read.debug, read.logLevel, read.bridge.icc, read.bridge.mtu, read.group, read.bridge.name],
    [true, 'warn', false, 1400, 'group', 'none'],
  );
});

test('wrong command lines have the texts of pflag', () => {
  const see = "\nSee 'gantryd --help'.";
  assert.equal(refusal(['--nope']), `unknown flag: --nope${see}`);
  assert.equal(refusal(['-Dx']), `unknown shorthand flag: 'x' in -Dx${see}`);
  assert.equal(refusal(['--host']), `flag needs an argument: --host${see}`);
  assert.equal(refusal(['-H']), `flag needs an argument: 'H' in -H${see}`);
  assert.equal(
    refusal(['--mtu=x']),
    `invalid argument "x" for "--mtu" flag: strconv.ParseInt: parsing "x": invalid syntax${see}`,
  );
  assert.equal(
    refusal(['--debug=perhaps']),
    `invalid argument "perhaps" for "-D, --debug" flag: strconv.ParseBool: parsing "perhaps": invalid syntax${see}`,
  );
  assert.equal(refusal(['--label', 'x']), `invalid argument "x" for "--label" flag: bad attribute format: x${see}`);
  assert.equal(refusal(['serve']), `"gantryd" accepts no arguments.${see}`);
});

test('typed values come out of flags', () => {
  const read = options([
    '--default-ulimit',
    'nofile=1:2',
    '--default-ulimit=nproc=5',
    '--add-runtime',
    'Crun=/usr/bin/crun',
    '--log-opt',
    'max-size=1m',
    '--default-address-pool',
    'base=10.1.0.0/16,size=24',
    '--default-shm-size',
    '1g',
    '--dns',
    '1.1.1.1,8.8.8.8',
    '--feature',
    'a',
    '--feature',
    'b=false',
    '--exec-opt',
    'native.cgroupdriver=cgroupfs',
  ]);
  assert.deepEqual(read.defaultUlimits, {
    nofile: { Name: 'nofile', Soft: 1, Hard: 2 },
    nproc: { Name: 'nproc', Soft: 5, Hard: 5 },
  });
  assert.deepEqual(read.runtimes, { crun: { path: '/usr/bin/crun', args: [], type: '', options: {} } });
  assert.deepEqual(read.logOptions, { 'max-size': '1m' });
  assert.deepEqual(read.addressPools, [{ base: '10.1.0.0/16', size: 24 }]);
  assert.equal(read.defaultShmSizeBytes, 2 ** 30);
  assert.deepEqual(read.dns.servers, ['1.1.1.1', '8.8.8.8']);
  assert.deepEqual(read.features, { a: true, b: false });
  assert.equal(read.cgroupDriver, 'cgroupfs');
});

test('the file gives values, nested objects are flattened, runtimes are merged', () => {
  const file = JSON.stringify({
    debug: true,
    icc: false,
    hosts: ['tcp://:2'],
    proxies: { 'http-proxy': 'http://p' },
    runtimes: { a: { path: '/a', runtimeArgs: ['x'] } },
    'default-ulimits': { nofile: { Name: 'nofile', Hard: 3, Soft: 2 } },
    'default-shm-size': '16M',
    builder: { gc: { enabled: true } },
  });
  const read = options(['--add-runtime', 'b=/b'], file);
  assert.deepEqual(
    [read.debug, read.bridge.icc, read.proxies.http, read.defaultShmSizeBytes],
    [true, false, 'http://p', 16 * 2 ** 20],
  );
  assert.deepEqual(read.hosts, [{ protocol: 'tcp', host: 'localhost', port: 2 }]);
  assert.deepEqual(Object.keys(read.runtimes).sort(), ['a', 'b']);
  assert.deepEqual(read.defaultUlimits['nofile'], { Name: 'nofile', Hard: 3, Soft: 2 });
});

test('files that dockerd refuses are refused with its texts', () => {
  const prefix = 'unable to configure the Docker daemon with file F: ';
  const cases: [string[], string, string][] = [
    [[], '{"foo":1}', "the following directives don't match any configuration option: foo"],
    [
      ['--label', 'a=1'],
      '{"labels":["b=2","c=3"]}',
      'the following directives are specified both as a flag and in the configuration file: labels: (from flag: [a=1], from file: [b=2 c=3])',
    ],
    [
      ['--mtu=9'],
      '{"mtu":8}',
      'the following directives are specified both as a flag and in the configuration file: mtu: (from flag: 9, from file: 8)',
    ],
    [[], '{"mtu":"a"}', 'json: cannot unmarshal string into Go struct field Config.mtu of type int'],
    [[], '{', 'unexpected end of JSON input'],
    [[], '{} x', "invalid character 'x' after top-level value"],
  ];
  for (const [argv, file, text] of cases) assert.equal(refusal(argv, file), prefix + text);
  assert.throws(
    () => readInvocation(['--config-file', '/nonexistent/x.json'], {}),
    /with file \/nonexistent\/x\.json: open \/nonexistent\/x\.json: no such file or directory$/,
  );
});

test('values out of range are refused with the texts of dockerd', () => {
  const cases: [string[], string][] = [
    [['-l', 'loud'], 'invalid logging level: loud'],
    [['--log-format', 'xml'], 'invalid log format: xml'],
    [['--mtu', '-1'], 'invalid default MTU: -1'],
    [['--label', 'a=1', '--label', 'a=2'], 'conflict labels for a=2 and a=1'],
    [['--exec-opt', 'x=y'], "invalid exec-opt (x=y): unknown option: 'x'"],
    [['--default-ipc-mode', 'host'], 'IPC mode "host" is not supported as default value; use "shareable" or "private"'],
    [['--default-runtime', 'zz'], "specified default runtime 'zz' does not exist"],
    [['-H', 'gopher://x'], 'invalid bind address format: gopher://x'],
  ];
  for (const [argv, text] of cases) assert.equal(refusal(argv), text);
});

test('what is not built is refused by name and its default is accepted', () => {
  assert.equal(
    refusal(['--userns-remap', 'default']),
    'option --userns-remap is not implemented by this version of Gantry',
  );
  assert.equal(refusal([], '{"ipv6":true}'), 'option --ipv6 is not implemented by this version of Gantry');
  assert.equal(options(['--ipv6=false', '--selinux-enabled=false', '--raw-logs']).debug, false);
});

test('TLS follows flags and environment', () => {
  assert.equal(options([]).tls, undefined);
  assert.deepEqual(options(['--tls', '--tlscert', '/c', '--tlskey', '/k', '--tlscacert', '/a']).tls, {
    ca: '/a',
    cert: '/c',
    key: '/k',
    verify: true,
  });
  assert.equal(options(['--tlsverify=false']).tls?.verify, false);
  assert.equal(options([], '{}', { DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: '/d' }).tls?.cert, '/d/cert.pem');
  assert.deepEqual(options(['--tls', '-H', 'tcp://0.0.0.0']).hosts, [{ protocol: 'tcp', host: '0.0.0.0', port: 2376 }]);
});

test('help and version need no valid configuration, validate says which action it is', () => {
  assert.deepEqual(readInvocation(['--config-file', '/nonexistent', '--help'], {}), { action: 'help' });
  assert.deepEqual(readInvocation(['-v'], {}), { action: 'version' });
  assert.equal(readInvocation(['--config-file=', '--validate'], {}).action, 'validate');
  const isListed = (name: string): boolean => new RegExp(`^ +(-\\w, )?--${name}( |$)`, 'm').test(helpText());
  for (const spec of FLAGS) assert.equal(isListed(spec.name), !spec.isHidden, spec.name);
});

test('a reload takes over the reloadable options only', () => {
  const before = options([], '{"labels":["a=1"],"mtu":1400}');
  const after = options([], '{"labels":["a=2"],"mtu":1300,"debug":true}');
  const { options: merged, changed } = reloadOptions(before, after);
  assert.deepEqual(changed, ['debug', 'labels']);
  assert.deepEqual([merged.debug, merged.labels, merged.bridge.mtu], [true, ['a=2'], 1400]);
});
