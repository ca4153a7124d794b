/** Helpers of the network tests: a service over a throw-away database, programs inside sandboxes, leak snapshots. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EndpointRequest, NetworkSpec, Networks, PublishRequest, Sandbox } from '#services/networks/contract.ts';
import { type NetworksOptions, openNetworks } from '#services/networks/networks.ts';
import { Database } from '#system/database/database.ts';
import { removeNetworkNamespace } from '#system/kernel/namespaces.ts';
import { NetlinkSocket } from '#system/netlink/socket.ts';
import { openNftables } from '#system/nftables/nftables.ts';
import { type Id, newId } from '#types/ids.ts';

export interface Instance extends AsyncDisposable {
  readonly networks: Networks;
  readonly database: Database;
  readonly namespaceDirectory: string;
  readonly warnings: string[];
}

/** Opens a service in `directory`, recovered with `running`. */
export async function openInstance(
  directory: string,
  bridge: NetworksOptions['bridge'],
  running: ReadonlySet<Id> = new Set(),
  plugins?: NonNullable<NetworksOptions['plugins']>,
): Promise<Instance> {
  const database = new Database(join(directory, 'state.db'));
  const namespaceDirectory = join(directory, 'netns');
  const warnings: string[] = [];
  const instance = `test${bridge.name.slice(-6)}`;
  const networks = openNetworks({
    database,
    instance,
    namespaceDirectory,
    bridge,
    ...(plugins === undefined ? {} : { plugins }),
    warn: (message) => warnings.push(message),
  });
  await networks.recover(running);
  return {
    networks,
    database,
    namespaceDirectory,
    warnings,
    async [Symbol.asyncDispose]() {
      await networks[Symbol.asyncDispose]();
      database[Symbol.dispose]();
    },
  };
}

export function temporaryDirectory(): Disposable & { path: string } {
  const path = mkdtempSync(join(tmpdir(), 'gantry-net-'));
  return {
    path,
    [Symbol.dispose]: () => {
      // What a failed assertion left; a passing test checks that nothing is.
      for (const line of mountsUnder(path)) removeNetworkNamespace(line.split(' ')[4] ?? '');
      rmSync(path, { recursive: true, force: true });
    },
  };
}

export function publish(
  containerPort: number,
  hostPort: number,
  options: Partial<PublishRequest> = {},
): PublishRequest {
  return {
    protocol: 'tcp',
    containerPort,
    hostAddress: '',
    hostPortFirst: hostPort,
    hostPortLast: hostPort,
    ...options,
  };
}

export function endpointRequest(containerId: Id, options: Partial<EndpointRequest> = {}): EndpointRequest {
  return {
    network: 'bridge',
    containerId,
    containerName: `name-${containerId.slice(0, 6)}`,
    publish: [],
    exposed: [],
    links: [],
    ...options,
  };
}

/** A bridge network without settings. */
export function networkSpec(name: string, options: Partial<NetworkSpec> = {}): NetworkSpec {
  return {
    name,
    driver: 'bridge',
    ipv4: true,
    ipv6: false,
    internal: false,
    attachable: false,
    ingress: false,
    scope: '',
    configOnly: false,
    configFrom: '',
    options: {},
    labels: {},
    ipam: { driver: 'default', options: null, pools: [] },
    ...options,
  };
}

/** A sandbox joined to the bridge. */
export async function joined(
  networks: Networks,
  options: Partial<EndpointRequest> = {},
): Promise<{ id: Id; sandbox: Sandbox; endpoint: Awaited<ReturnType<Networks['connect']>> }> {
  const id = newId();
  const sandbox = await networks.createSandbox(id);
  try {
    return { id, sandbox, endpoint: await networks.connect(sandbox, endpointRequest(id, options)) };
  } catch (error) {
    await networks.removeSandbox(id);
    throw error;
  }
}

/** Echo server answering `hello <client address>\n` on TCP and `udp <text>` on UDP, inside a sandbox. */
const SERVER = `
const port = Number(process.argv[1]);
require('node:net').createServer({ allowHalfOpen: true }, (c) => {
  const parts = []; c.on('data', (d) => parts.push(d)); c.on('error', () => {});
  c.on('end', () => c.end('hello ' + c.remoteAddress.replace('::ffff:', '') + ' ' + Buffer.concat(parts).length + '\\n'));
}).listen(port, '::', () => {
  const u = require('node:dgram').createSocket({ type: 'udp6' });
  u.on('message', (d, r) => u.send('udp ' + d, r.port, r.address));
  u.bind(port, () => console.log('ready'));
});`;

const CLIENT = `
const [host, port, size] = process.argv.slice(1);
const c = require('node:net').connect({ host, port: Number(port), allowHalfOpen: true, timeout: 1500 });
c.on('connect', () => c.end(Buffer.alloc(Number(size))));
c.on('timeout', () => { console.log('timeout'); process.exit(0); });
c.on('error', (e) => { console.log(e.code); process.exit(0); });
c.pipe(process.stdout);`;

const UDP_CLIENT = `
const [host, port] = process.argv.slice(1);
const c = require('node:dgram').createSocket(host.includes(':') ? 'udp6' : 'udp4');
c.on('message', (d) => { console.log(String(d)); process.exit(0); });
c.send('ping', Number(port), host);
setTimeout(() => { console.log('timeout'); process.exit(0); }, 1500);`;

export async function serve(sandbox: Sandbox, port: number): Promise<AsyncDisposable> {
  const child = spawn('nsenter', [`--net=${sandbox.path}`, process.execPath, '-e', SERVER, String(port)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return {
    async [Symbol.asyncDispose]() {
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    },
  };
}

/** Talks TCP from a sandbox, or from the host when `from` is undefined; the answer's text or an error code. */
export function talk(from: Sandbox | undefined, host: string, port: number, sizeBytes = 3): Promise<string> {
  return output(from, CLIENT, [host, String(port), String(sizeBytes)]);
}

export function talkUdp(from: Sandbox | undefined, host: string, port: number): Promise<string> {
  return output(from, UDP_CLIENT, [host, String(port)]);
}

/** One process that asks many targets at once; the answer says which of them answered. */
const PROBE = `
const targets = JSON.parse(process.argv[1]);
const ask = ({ protocol, host, port }) => new Promise((resolve) => {
  setTimeout(resolve, 1200, false);
  if (protocol === 'tcp') {
    const c = require('node:net').connect({ host, port, allowHalfOpen: true });
    c.on('connect', () => c.end('x'));
    c.on('data', (d) => resolve(String(d).startsWith('hello')));
    c.on('error', () => resolve(false));
  } else {
    const u = require('node:dgram').createSocket(host.includes(':') ? 'udp6' : 'udp4');
    u.on('message', (d) => resolve(String(d) === 'udp ping'));
    u.on('error', () => resolve(false));
    const send = () => u.send('ping', port, host, () => {});
    send();
    setInterval(send, 300);
  }
});
Promise.all(targets.map(ask)).then((found) => { console.log(JSON.stringify(found)); process.exit(0); });`;

export interface ProbeTarget {
  readonly protocol: 'tcp' | 'udp';
  readonly host: string;
  readonly port: number;
}

export async function probe(from: Sandbox | undefined, targets: readonly ProbeTarget[]): Promise<boolean[]> {
  return JSON.parse(await output(from, PROBE, [JSON.stringify(targets)])) as boolean[];
}

async function output(from: Sandbox | undefined, program: string, values: string[]): Promise<string> {
  const command = [process.execPath, '-e', program, ...values];
  const [file = '', ...rest] = from === undefined ? command : ['nsenter', `--net=${from.path}`, ...command];
  const child = spawn(file, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk;
  });
  await once(child, 'close');
  return text.trim();
}

/** Everything a network may leave behind, as comparable text. */
export function kernelState(filter: RegExp = /./): string[] {
  using netlink = NetlinkSocket.open();
  using rules = openNftables();
  const listing = rules.list('list tables') as { nftables: { table?: { family: string; name: string } }[] };
  const names = new Map(netlink.links().map((link) => [link.index, link.name]));
  return [
    ...names.values(),
    ...netlink.addresses().map(({ index, address }) => `${names.get(index)} ${address}`),
    ...listing.nftables.flatMap(({ table }) => (table === undefined ? [] : [`table ${table.family} ${table.name}`])),
  ]
    .filter((line) => filter.test(line))
    .sort();
}

/** Waits until the kernel's background clean-up has reached `wanted`. */
export async function settled(wanted: readonly string[], filter?: RegExp): Promise<string[]> {
  for (let attempt = 0; ; attempt += 1) {
    const now = kernelState(filter);
    if (attempt === 60 || JSON.stringify(now) === JSON.stringify(wanted)) return now;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export function mountsUnder(directory: string): string[] {
  return execFileSync('cat', ['/proc/self/mountinfo'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(directory));
}

export function filesIn(directory: string): string[] {
  return readdirSync(directory);
}
