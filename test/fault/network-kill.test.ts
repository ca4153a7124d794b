/** kill -9 of the daemon at any moment of making, joining, leaving and removing networks: the next one tidies up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startDaemon } from '../harness/daemon.ts';
import { eventually } from '../harness/processes.ts';

const ROUNDS = 6;

test('a daemon killed while networks change leaves no device, rule, address or namespace behind', async (context) => {
  await using daemon = await startDaemon({ ownNetwork: true });
  if (daemon.foreign) return context.skip('needs a daemon process of ours');
  const steady = daemon.name('steady');
  const home = daemon.name('home');
  await daemon.ok('network', 'create', '--subnet', '10.92.0.0/24', home);
  await daemon.ok(
    'run',
    '-d',
    '--name',
    steady,
    '--network',
    home,
    '-p',
    '8099:8080',
    'busybox',
    'httpd',
    '-f',
    '-p',
    '8080',
  );
  const answers = async (): Promise<boolean> =>
    (await daemon.onHost('curl', '-s', '-m', '2', '-o', '/dev/null', 'http://127.0.0.1:8099/')).code === 0;
  await eventually(answers, { what: 'the steady container to answer' });
  const links = async (): Promise<string[]> =>
    (await daemon.onHost('ip', '-o', 'link')).stdout.split('\n').filter((line) => /veth|br-/.test(line));
  const devices = (await links()).length;

  for (let round = 0; round < ROUNDS; round += 1) {
    const extra = `${home}-extra`;
    const changes = (async () => {
      // Ends with the daemon; whatever it was doing then is what is tested.
      for (;;) {
        const made = await daemon.api('POST', '/networks/create', { Name: extra });
        if (made.status !== 201) return;
        await daemon.api('POST', `/networks/${extra}/connect`, { Container: steady });
        await daemon.api('POST', `/networks/${extra}/disconnect`, { Container: steady });
        await daemon.api('DELETE', `/networks/${extra}`);
      }
    })().catch(() => undefined);
    await delay(60 + round * 35);
    await daemon.kill();
    await changes;
    await daemon.start();
    assert.ok(await answers(), `round ${round}: the steady container goes on answering`);
    const known = (await daemon.ok('network', 'ls', '-q', '--filter', `name=${extra}`)) !== '';
    const settings = JSON.parse(await daemon.inspect(steady, '{{json .NetworkSettings.Networks}}'));
    const endpoints = JSON.parse(await daemon.ok('network', 'inspect', home, ...(known ? [extra] : [])));
    const joined = endpoints.filter((network: { Containers: object }) => Object.keys(network.Containers).length > 0);
    assert.deepEqual(
      Object.keys(settings).toSorted(),
      joined.map(({ Name }: { Name: string }) => Name).toSorted(),
      'what the container and its networks say agrees',
    );
    const inside = (await daemon.ok('exec', steady, 'ls', '/sys/class/net'))
      .split(/\s+/)
      .filter((name) => name !== 'lo');
    assert.equal(inside.length, joined.length, `interfaces ${inside}`);
    if (joined.length > 1) await daemon.ok('network', 'disconnect', extra, steady);
    if (known) await daemon.ok('network', 'rm', extra);
    await eventually(async () => (await links()).length === devices, { what: 'the devices to be those of the start' });
  }
  const rules = (await daemon.onHost('nft', 'list', 'ruleset')).stdout;
  assert.equal(rules.match(/^\s+set bridges/gm)?.length, 1);
  assert.equal(rules.match(/"br-[0-9a-f]{12}" \. "br-[0-9a-f]{12}" : accept/g)?.length, 1);
});
