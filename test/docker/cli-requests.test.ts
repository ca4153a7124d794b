/** `gantry` sends the daemon what the docker CLI sends, and draws what it answers in the same way. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run, startInTerminal } from '../harness/processes.ts';
import { dockerApiVersion, invocations, parityObstacle } from './parity.ts';
import { type Answers, type Recorded, Recorder } from './recorder.ts';

const GANTRY = join(import.meta.dirname, '../../bin/gantry');
const DIGEST = `sha256:${'a'.repeat(64)}`;
const OTHER_DIGEST = `sha256:${'b'.repeat(64)}`;

const lines = (...messages: object[]): string => messages.map((message) => `${JSON.stringify(message)}\r\n`).join('');

const PULL = lines(
  { status: 'Pulling from library/some', id: 'latest' },
  { status: 'Pulling fs layer', progressDetail: {}, id: '0123456789ab' },
  { status: 'Pulling fs layer', progressDetail: {}, id: 'ba9876543210' },
  { status: 'Waiting', progressDetail: {}, id: 'ba9876543210' },
  {
    status: 'Downloading',
    progressDetail: { current: 512_000, total: 30_000_000 },
    progress: '[>      ] 512kB/30MB',
    id: '0123456789ab',
  },
  { status: 'Downloading', progressDetail: { current: 29_999_999, total: 30_000_000 }, id: '0123456789ab' },
  { status: 'Downloading', progressDetail: { current: 40_000_000, total: 30_000_000 }, id: 'ba9876543210' },
  { status: 'Verifying Checksum', progressDetail: {}, id: '0123456789ab' },
  { status: 'Download complete', progressDetail: {}, id: '0123456789ab' },
  { status: 'Extracting', progressDetail: { current: 3, units: 's' }, id: '0123456789ab' },
  { status: 'Extracting', progressDetail: { current: 5, total: 9, units: 'files' }, id: '0123456789ab' },
  { status: 'Extracting', progressDetail: { current: 5, total: 9, hidecounts: true }, id: '0123456789ab' },
  { status: 'Pull complete', progressDetail: {}, id: '0123456789ab' },
  { status: `Digest: ${DIGEST}` },
  { status: 'Status: Downloaded newer image for some:latest' },
);
const PUSH = lines(
  { status: 'The push refers to repository [example.test/some]' },
  { status: 'Preparing', progressDetail: {}, id: '0123456789ab' },
  { status: 'Pushing', progressDetail: { current: 512, total: 1024 }, progress: '[==> ]', id: '0123456789ab' },
  { status: 'Pushed', progressDetail: {}, id: '0123456789ab' },
  { status: 'latest: digest: ' },
  { progressDetail: {}, aux: { Tag: 'latest', Digest: DIGEST, Size: 528 } },
  {
    progressDetail: {},
    aux: {
      manifestPushedInsteadOfIndex: true,
      originalIndex: { digest: DIGEST },
      selectedManifest: { digest: OTHER_DIGEST },
    },
  },
);

const ANSWERS: Answers = {
  'POST /images/create': { text: PULL },
  'POST /images/docker.io/library/some/push': { text: PUSH },
  'POST /images/example.test/some/push': { text: PUSH },
  'POST /images/docker.io/library/broken/push': {
    text: lines({ status: 'begin' }, { errorDetail: { message: 'denied: no' }, error: 'denied: no' }),
  },
  'POST /auth': { text: JSON.stringify({ Status: 'Login Succeeded', IdentityToken: '' }) },
  'GET /images/search': {
    text: JSON.stringify([
      { name: 'b', description: 'long '.repeat(20), star_count: 5, is_official: true, is_automated: false },
      { name: 'a/x', description: 'two\nlines', star_count: 0, is_official: false, is_automated: false },
    ]),
  },
  'POST /containers/create': { status: 201, text: JSON.stringify({ Id: 'c'.repeat(64), Warnings: ['careful'] }) },
  'POST /networks/create': { status: 201, text: JSON.stringify({ Id: 'd'.repeat(64), Warning: '' }) },
  'POST /volumes/create': { status: 201, text: JSON.stringify({ Name: 'made' }) },
  'POST /build/prune': { text: JSON.stringify({ CachesDeleted: ['one', 'two'], SpaceReclaimed: 1234567 }) },
  'POST /images/prune': {
    text: JSON.stringify({ ImagesDeleted: [{ Untagged: 'x:y' }, { Deleted: DIGEST }], SpaceReclaimed: 1000 }),
  },
  'POST /containers/prune': { text: JSON.stringify({ ContainersDeleted: ['one'], SpaceReclaimed: 10 }) },
  'POST /networks/prune': { text: JSON.stringify({ NetworksDeleted: ['net'] }) },
  'POST /volumes/prune': { text: JSON.stringify({ VolumesDeleted: ['vol'], SpaceReclaimed: 5 }) },
  'POST /containers/one/wait': { text: JSON.stringify({ StatusCode: 3 }) },
  'POST /commit': { status: 201, text: JSON.stringify({ Id: DIGEST }) },
  'DELETE /images/some': { text: JSON.stringify([{ Untagged: 'some:latest' }, { Deleted: DIGEST }]) },
  'POST /build': { text: lines({ stream: 'Step 1/1 : FROM x\n' }, { aux: { ID: DIGEST } }, { stream: 'done\n' }) },
  'GET /images/json': {
    text: JSON.stringify([
      {
        Id: DIGEST,
        // One repository: docker lists several of an image in random order.
        RepoTags: ['some:latest', 'some:1.0'],
        RepoDigests: [`some@${DIGEST}`],
        Created: 1_700_000_000,
        Size: 123_456_789,
        SharedSize: -1,
        Containers: 2,
        Manifests: [
          {
            ID: DIGEST,
            Kind: 'image',
            Available: true,
            Size: { Total: 100_000_000, Content: 30_000_000 },
            ImageData: { Platform: { os: 'linux', architecture: 'amd64' }, Containers: ['one'] },
          },
          {
            ID: OTHER_DIGEST,
            Kind: 'image',
            Available: false,
            Size: { Total: 0, Content: 0 },
            ImageData: { Platform: { os: 'linux', architecture: 'arm', variant: 'v7' }, Containers: [] },
          },
          {
            ID: OTHER_DIGEST,
            Kind: 'attestation',
            Available: true,
            Size: { Total: 5, Content: 5 },
            AttestationData: { For: DIGEST },
          },
        ],
      },
      { Id: DIGEST, RepoTags: [], RepoDigests: [], Created: 1_600_000_000, Size: 5, SharedSize: -1, Containers: 0 },
    ]),
  },
};

const COMMANDS = `
pull some
pull -q some:tag
pull -a me/some
pull --platform LINUX/arm64 example.test:5000/some@${DIGEST}
push some
push -q example.test/some:1
push -a example.test/some
push --platform linux/arm/v7 some:x
push broken
search -f stars=3 -f is-official=true --limit 7 term
search --no-trunc --format '{{.Name}} {{.StarCount}} {{.IsOfficial}}' example.test/x
search --format json term
images
images -a -f dangling=true -f label=x --no-trunc --digests
images --tree
images --tree -a some
rmi -f --no-prune some
rmi --platform linux/amd64 --platform linux/arm64 some
tag some example.test:5000/me/other
import -c 'CMD x' -m why --platform linux/amd64 - me/made:1 <<< bytes
load --platform linux/amd64 <<< bytes
commit -a me -m why -c 'ENV A=b' -p=false one me/made
builder prune -f -a --filter until=24h
image prune -a -f --filter label=x
system prune -f -a --volumes --filter label!=y
build -t one -t two --build-arg A=b --label l=m --target t --network host --no-cache --pull --add-host h:1.2.3.4 --shm-size 64m --ulimit nofile=1:2 --memory 64m --memory-swap 128m --cpu-quota 5 --cpuset-cpus 0 --security-opt x=y --cache-from c --force-rm --platform linux/amd64 - <<< FROM x\\n
create some
create -v named:/c some
create --name n -e A=b -l x=y -p 127.0.0.1:80:8080/udp -p 90-92:90-92 --expose 7 -v /a:/b:ro -v /anonymous --tmpfs /t:size=1m --mount type=bind,src=/s,dst=/d,readonly,bind-propagation=rslave --mount type=volume,src=v,dst=/e,volume-nocopy,volume-driver=local,volume-opt=o=p --mount type=tmpfs,dst=/f,tmpfs-size=1m,tmpfs-mode=1777 some sh -c x
create --memory 64m --memory-swap -1 --memory-reservation 32m --memory-swappiness 5 --cpus 1.5 --cpu-shares 5 --cpu-period 100 --cpu-quota 200 --cpuset-cpus 0-1 --cpuset-mems 0 --pids-limit 9 --blkio-weight 100 --oom-score-adj 5 --oom-kill-disable --ulimit nofile=1:2 --kernel-memory 10m some
create --restart on-failure:3 --hostname h --domainname d --user 1:2 -w /w --entrypoint e --stop-signal TERM --stop-timeout 5 --init --read-only --privileged --cap-add ALL --cap-drop NET_RAW --security-opt no-new-privileges --group-add 5 --ipc host --pid host --uts host --userns host --cgroupns private --sysctl net.a=b --runtime r --isolation default --shm-size 1m --storage-opt size=1g --cgroup-parent /p --annotation a=b some
create --network net --network-alias a1 --network-alias a2 --ip 1.2.3.4 --ip6 fd00::1 --link-local-ip 169.254.1.1 --mac-address 02:00:00:00:00:01 --link l1 --dns 1.1.1.1 --dns-search s --dns-option o --add-host h:1.2.3.4 --log-driver json-file --log-opt max-size=1m some
create --network name=one,alias=x,ip=1.2.3.4,driver-opt=a=b --network two --health-cmd true --health-interval 5s --health-timeout 2s --health-retries 3 --health-start-period 1s --volumes-from other:ro --volume-driver vd --device /dev/null:/dev/x:r --device-cgroup-rule 'c 1:3 r' --gpus all -it some
create --sysctl a=b some
create --no-healthcheck --publish-all --device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:5 --blkio-weight-device /dev/sda:50 --attach stdout --systempaths some
network create --driver bridge --subnet 10.1.0.0/16 --ip-range 10.1.2.0/24 --gateway 10.1.0.1 --aux-address a=10.1.0.9 --ipv6 --internal --attachable --label a=b -o x=y --ipam-driver d --ipam-opt p=q net
network connect --ip 1.2.3.4 --alias a --link l --driver-opt a=b --gw-priority 5 net one
network disconnect -f net one
volume create -d local -o type=tmpfs --label a=b vol
update --memory 64m --memory-swap 128m --cpus 2 --pids-limit 5 --restart unless-stopped one
stop -s TERM -t 5 one
restart -t 5 one
kill -s HUP one
rm -f -v one
rename one two
wait one
`;

describe('gantry and docker', () => {
  let directory: string;
  let recorder: Recorder;
  let obstacle: string | undefined;
  let host: string;
  before(async () => {
    obstacle = await parityObstacle();
    if (obstacle !== undefined) return;
    directory = mkdtempSync(join(tmpdir(), 'gantry-requests-'));
    host = `unix://${directory}/s`;
    recorder = await Recorder.listen(`${directory}/s`, await dockerApiVersion(), ANSWERS);
  });
  after(async () => {
    await recorder?.[Symbol.asyncDispose]();
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  });

  const config = (name: string, content: object = {}): string => {
    const path = join(directory, name);
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, 'config.json'), JSON.stringify(content), { mode: 0o600 });
    return path;
  };
  const environment = (configPath: string, more: Record<string, string> = {}): Record<string, string> => ({
    DOCKER_HOST: host,
    DOCKER_CONFIG: configPath,
    DOCKER_API_VERSION: '',
    DOCKER_BUILDKIT: '0',
    DOCKER_CLI_HINTS: 'false',
    ...more,
  });

  interface Seen {
    readonly requests: Recorded[];
    readonly stdout: string;
    readonly stderr: string;
    readonly code: number;
  }

  async function see(
    program: string,
    line: { args: string[]; input: string; env: Record<string, string> },
  ): Promise<Seen> {
    const result = await run(program, line.args, { input: line.input, env: line.env, cwd: directory });
    const plain = (text: string): string =>
      text.replace(/\bgantry\b/g, 'docker').replace(/^DEPRECATED: The legacy builder[\s\S]*?\n\n/, '');
    return { requests: recorder.take(), stdout: plain(result.stdout), stderr: plain(result.stderr), code: result.code };
  }

  test('send the same requests and print the answers alike', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    const auths = {
      'https://index.docker.io/v1/': { auth: Buffer.from('hub:pass:word').toString('base64') },
      'example.test': { identitytoken: 'token', auth: Buffer.from('me:x').toString('base64') },
      'http://example.test:5000/v1/': { auth: Buffer.from('old:style').toString('base64') },
    };
    const env = environment(config('requests', { auths }));
    const differences: string[] = [];
    for (const { line, input = '' } of invocations(COMMANDS)) {
      const args = (line.match(/(?:[^\s']|'[^']*')+/g) ?? []).map((word) => word.replaceAll("'", ''));
      const docker = await see('docker', { args, input, env });
      const gantry = await see(GANTRY, { args, input, env });
      try {
        assert.deepEqual(gantry, docker);
      } catch (error) {
        differences.push(`${line}\n${(error as Error).message}`);
      }
    }
    if (differences.length > 0) assert.fail(`${differences.length} differ\n\n${differences.join('\n\n')}`);
  });

  test('draw progress alike on a terminal', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    const env = environment(config('terminal'));
    for (const columns of [150, 80]) {
      for (const command of ['pull some', 'push some', 'images --tree']) {
        const draw = async (program: string): Promise<string> => {
          const shell = `stty cols ${columns}; exec ${program} ${command}`;
          return (await startInTerminal('sh', ['-c', shell], { env }).done).stdout;
        };
        assert.equal(await draw(GANTRY), await draw('docker'), `${command} in ${columns} columns`);
      }
    }
    recorder.take();
  });

  test('keep credentials alike, in the file and in a helper', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    const helper = join(directory, 'docker-credential-recording');
    writeFileSync(
      helper,
      `#!/bin/sh\ninput=$(cat)\necho "$1 $input" >>"$HELPER_LOG"\ncase $1 in\nget) case $input in\n  known*) echo '{"ServerURL":"known.test","Username":"u","Secret":"s"}' ;;\n  token*) echo '{"Username":"<token>","Secret":"t"}' ;;\n  *) echo 'credentials not found in native keychain'; exit 1 ;;\nesac ;;\nlist) echo '{"known.test":"u"}' ;;\nesac\n`,
    );
    chmodSync(helper, 0o755);
    const seen: Record<string, unknown> = {};
    for (const program of ['docker', GANTRY]) {
      const name = program === 'docker' ? 'theirs' : 'ours';
      const file = config(`file-${name}`, { auths: {}, unknownKey: { kept: [1] }, psFormat: 'x' });
      const store = config(`store-${name}`, { credsStore: 'recording', credHelpers: { 'token.test': 'recording' } });
      const log = join(directory, `log-${name}`);
      const path = `${directory}:${process.env['PATH'] ?? ''}`;
      const more = { PATH: path, HELPER_LOG: log };
      const steps: unknown[] = [];
      const step = async (configPath: string, line: string, input = ''): Promise<void> => {
        const env = environment(configPath, more);
        const { requests, stdout, stderr, code } = await see(program, { args: line.split(' '), input, env });
        steps.push({ line, requests, code, output: (stdout + stderr).replaceAll(`-${name}/`, '-/') });
      };
      await step(file, 'login -u me -p secret registry.test:5000');
      await step(file, 'login registry.test:5000');
      await step(file, 'login -u hub --password-stdin', 'from stdin\n');
      await step(file, 'pull registry.test:5000/x');
      await step(file, 'logout registry.test:5000');
      await step(store, 'login -u me -p secret registry.test');
      await step(store, 'pull known.test/x');
      await step(store, 'pull token.test/x');
      await step(store, 'pull nowhere.test/x');
      await step(store, 'logout registry.test');
      const read = (where: string): unknown => JSON.parse(readFileSync(join(where, 'config.json'), 'utf8'));
      const { unknownKey, ...known } = read(file) as Record<string, unknown>;
      seen[name] = {
        steps,
        log: readFileSync(log, 'utf8'),
        file: known,
        mode: statSync(join(file, 'config.json')).mode & 0o777,
        store: read(store),
      };
      // Docker forgets keys it does not know; gantry keeps them.
      if (name === 'ours') assert.deepEqual(unknownKey, { kept: [1] });
    }
    assert.deepEqual(seen['ours'], seen['theirs']);
  });

  test('ask for credentials alike on a terminal', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    const seen: unknown[] = [];
    for (const program of ['docker', GANTRY]) {
      const where = config(program === 'docker' ? 'asked-theirs' : 'asked-ours');
      const login = startInTerminal(program, ['login', 'registry.test'], { env: environment(where) });
      await login.shows(/Username: /);
      login.type('me\r');
      await login.shows(/Password: /);
      login.type('secret\r');
      const { stdout, code } = await login.done;
      assert.doesNotMatch(stdout, /secret/);
      const stored = readFileSync(join(where, 'config.json'), 'utf8');
      seen.push([code, stdout.replaceAll(where, '<config>'), stored, recorder.take()]);
    }
    assert.deepEqual(seen[1], seen[0]);
  });

  test('gantry takes credentials from DOCKER_AUTH_CONFIG first', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    const auth = Buffer.from('env:pw').toString('base64');
    const env = environment(config('variable'), {
      DOCKER_AUTH_CONFIG: JSON.stringify({ auths: { 'other.test': { auth } } }),
    });
    const { requests } = await see(GANTRY, { args: ['pull', 'other.test/x'], input: '', env });
    assert.deepEqual(requests[0]?.registryAuth, { password: 'pw', serveraddress: 'other.test', username: 'env' });
    const { stderr } = await see(GANTRY, { args: ['logout'], input: '', env });
    assert.match(stderr, /DOCKER_AUTH_CONFIG is set and takes precedence/);
  });

  test('gantry refuses content trust instead of ignoring it', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    const env = environment(config('trust'), { DOCKER_CONTENT_TRUST: '1' });
    for (const args of [
      ['pull', 'some'],
      ['push', 'some'],
      ['run', 'some'],
    ]) {
      const { code, stderr, requests } = await see(GANTRY, { args, input: '', env });
      assert.notEqual(code, 0);
      assert.match(stderr, /Docker Content Trust is not supported/);
      assert.deepEqual(requests, []);
    }
  });
});
