/** `gantry` beside the docker CLI with real registries: log in, push, pull, search, manifest lists. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startDaemon, type TestDaemon } from '../harness/daemon.ts';
import { startRegistry, type TestRegistry } from '../harness/registry.ts';
import { compareInOrder, dockerApiVersion, type ParityContext, parityObstacle } from './parity.ts';

const TRANSFERS = `
tag busybox PLAIN/bb:{}
push PLAIN/bb:{}
push PLAIN/bb:{}
push -q PLAIN/bb:{}
push PLAIN/bb
push PLAIN/nosuch:x
pull PLAIN/bb:{}
rmi PLAIN/bb:{}
pull PLAIN/bb:{}
pull -q PLAIN/bb:{}
pull PLAIN/bb
pull PLAIN/bb:nosuch
pull PLAIN/nosuch
pull PLAIN/bb@sha256:${'0'.repeat(64)}
run --rm PLAIN/nosuch true
run --rm -q --pull always --network none PLAIN/bb:{} echo q
images --digests PLAIN/bb:{}
search PLAIN/bb
login SECURED
login -u bob -p wrong SECURED
login -u bob --password-stdin SECURED <<< secret\\n
login SECURED
tag busybox SECURED/bb:{}
push SECURED/bb:{}
pull SECURED/bb:{}
logout SECURED
pull SECURED/bb:{}
push SECURED/bb:{}
`;

const MANIFESTS = `
manifest inspect --insecure PLAIN/bb:one
manifest inspect PLAIN/bb:one
manifest inspect --insecure -v PLAIN/bb:one
manifest inspect --insecure PLAIN/bb:nosuch
manifest inspect --insecure SECURED/bb:x
manifest inspect BAD
manifest create PLAIN/list:z
manifest create --insecure PLAIN/list:z PLAIN/bb:one PLAIN/second:1
manifest create --insecure PLAIN/list:z PLAIN/bb:one
manifest create --insecure -a PLAIN/list:z PLAIN/bb:one
manifest annotate --arch arm64 --variant v8 --os-features a,b --os-version 7 PLAIN/list:z PLAIN/second:1
manifest annotate --arch bogus PLAIN/list:z PLAIN/second:1
manifest annotate --arch arm64 PLAIN/list:z PLAIN/third
manifest inspect PLAIN/list:z
manifest inspect -v PLAIN/list:z
manifest inspect PLAIN/list:z PLAIN/second:1
manifest push --insecure -p PLAIN/list:z
manifest push --insecure PLAIN/list:z
manifest inspect --insecure PLAIN/list:z
manifest inspect --insecure -v PLAIN/list:z
manifest create --insecure other.test/list:z PLAIN/bb:one
manifest push --insecure other.test/list:z
manifest rm other.test/list:z nosuch
`;

describe('gantry and docker', () => {
  let daemon: TestDaemon;
  let plain: TestRegistry;
  let secured: TestRegistry;
  let context: ParityContext;
  let obstacle: string | undefined;
  before(async () => {
    obstacle = await parityObstacle();
    if (obstacle !== undefined) return;
    plain = await startRegistry();
    secured = await startRegistry({ htpasswd: { username: 'bob', password: 'secret' } });
    daemon = await startDaemon({ bridge: false });
    const version = await dockerApiVersion();
    const cwd = join(daemon.directory, 'work');
    for (const program of ['docker', 'gantry']) mkdirSync(join(cwd, `config-${program}`), { recursive: true });
    context = {
      cwd,
      environment: (program) => ({
        DOCKER_HOST: daemon.host,
        DOCKER_CONFIG: join(cwd, `config-${program}`),
        DOCKER_API_VERSION: version,
        DOCKER_CLI_HINTS: 'false',
      }),
    };
  });
  after(async () => {
    await daemon?.[Symbol.asyncDispose]();
    await plain?.[Symbol.asyncDispose]();
    await secured?.[Symbol.asyncDispose]();
  });
  const table = (text: string): string => text.replaceAll('PLAIN', plain.host).replaceAll('SECURED', secured.host);

  test('move images in the same words', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    await daemon.ok('tag', 'busybox', `${plain.host}/bb:first`);
    // What is there already is told differently from what is pushed for the first time.
    await daemon.ok('push', '-q', `${plain.host}/bb:first`);
    await daemon.docker(['login', '-u', 'bob', '-p', 'secret', secured.host]);
    await daemon.ok('tag', 'busybox', `${secured.host}/bb:first`);
    await daemon.ok('push', '-q', `${secured.host}/bb:first`);
    await compareInOrder(table(TRANSFERS), context);
  });

  test('put manifest lists together alike', async (suite) => {
    if (obstacle !== undefined) return suite.skip(obstacle);
    await daemon.ok('tag', 'busybox', `${plain.host}/bb:one`);
    await daemon.ok('push', '-q', `${plain.host}/bb:one`);
    const name = daemon.name('second');
    await daemon.ok('run', '--name', name, '--network', 'none', 'busybox', 'touch', '/x');
    await daemon.ok('commit', name, `${plain.host}/second:1`);
    await daemon.ok('push', '-q', `${plain.host}/second:1`);
    await compareInOrder(table(MANIFESTS), context);
  });
});
