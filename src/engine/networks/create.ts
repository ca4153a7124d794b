/** `docker network create`: the request checked in docker's order, then made by the networks service. */
import { contains, formatPrefix, overlaps, type Prefix, tryParseCidr, tryParseIp } from '#services/networks/address.ts';
import { parseGoBoolean } from '#services/networks/bridge-settings.ts';
import type { IpamPool, NetworkSpec } from '#services/networks/contract.ts';
import { isPredefined } from '#services/networks/store.ts';
import { GantryError } from '#types/errors.ts';
import type { IPAMConfig, NetworkCreateRequest } from '#wire/engine.ts';
import type { Services } from '../services.ts';

const ENABLE_IPV4 = 'com.docker.network.enable_ipv4';
const ENABLE_IPV6 = 'com.docker.network.enable_ipv6';

/** Makes a network; returns its ID. */
export async function createNetwork(
  services: Pick<Services, 'networks' | 'events' | 'settings'>,
  request: NetworkCreateRequest,
): Promise<{ Id: string; Warning: string }> {
  const spec = parseNetworkRequest(request, services.settings.current().networkOptions);
  const network = await services.networks.create(spec);
  const { id, name, driver } = network;
  services.events.publish('network', 'create', id, { name, type: driver });
  return { Id: id, Warning: '' };
}

/** Reads a request. `defaults`: driver → options (`--default-network-opt`). Exported for tests. */
export function parseNetworkRequest(
  request: NetworkCreateRequest,
  defaults: Readonly<Record<string, Readonly<Record<string, string>>>>,
): NetworkSpec {
  const name = request.Name ?? '';
  if (isPredefined(name))
    throw new GantryError('forbidden', `operation is not permitted on predefined ${name} network `);
  const driver = request.Driver || 'bridge';
  if (driver === 'overlay') {
    throw new GantryError(
      'forbidden',
      'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
    );
  }
  const configFrom = request.ConfigFrom?.Network ?? '';
  const options = { ...(configFrom === '' ? defaults[driver] : undefined), ...request.Options };
  const ipv4 = familyFlag(request.EnableIPv4, options, ENABLE_IPV4, true);
  const ipv6 = familyFlag(request.EnableIPv6, options, ENABLE_IPV6, false);
  const config = request.IPAM?.Config ?? [];
  checkIpam(config, ipv6);
  return {
    name,
    driver,
    ipv4,
    ipv6,
    internal: request.Internal ?? false,
    attachable: request.Attachable ?? false,
    ingress: request.Ingress ?? false,
    scope: request.Scope ?? '',
    configOnly: request.ConfigOnly ?? false,
    configFrom,
    options,
    labels: request.Labels ?? {},
    ipam: {
      driver: request.IPAM?.Driver || 'default',
      options: request.IPAM?.Options ?? null,
      pools: config.map(poolOf),
    },
  };
}

function familyFlag(
  given: boolean | null | undefined,
  options: Record<string, string>,
  label: string,
  absent: boolean,
): boolean {
  if (given != null) {
    delete options[label];
    return given;
  }
  const text = options[label];
  if (text === undefined) return absent;
  const value = parseGoBoolean(text);
  if (value === undefined) throw new GantryError('invalid', `driver-opt ${JSON.stringify(label)} is not a valid bool`);
  return value;
}

function poolOf({ Subnet, IPRange, Gateway, AuxiliaryAddresses }: IPAMConfig): IpamPool {
  return {
    subnet: Subnet ?? '',
    ...(IPRange ? { ipRange: IPRange } : {}),
    ...(Gateway ? { gateway: Gateway } : {}),
    ...(AuxiliaryAddresses && Object.keys(AuxiliaryAddresses).length > 0
      ? { auxiliaryAddresses: AuxiliaryAddresses }
      : {}),
  };
}

/** All mistakes of all pools together, as docker lists them. */
function checkIpam(config: readonly IPAMConfig[], ipv6: boolean): void {
  const wrong = config.flatMap((pool) => poolMistakes(pool, ipv6));
  if (wrong.length === 0) return;
  const text = wrong.length === 1 ? wrong[0] : wrong.map((each) => `* ${each}`).join('\n');
  throw new GantryError('invalid', `invalid network config:\n${text}`);
}

function poolMistakes(pool: IPAMConfig, ipv6: boolean): string[] {
  const text = pool.Subnet ?? '';
  const parsed = tryParseCidr(text);
  if (parsed === undefined) return [`invalid subnet ${text}: invalid CIDR block notation`];
  const { subnet } = parsed;
  // Compat: IPv6 pools of a network without IPv6 are kept but mean nothing.
  if (subnet.family === 6 && !ipv6) return [];
  const wrong: string[] = [];
  if (isUnmasked(parsed)) wrong.push(`invalid subnet ${text}: it should be ${masked(parsed)}`);
  wrong.push(...rangeMistakes(pool.IPRange ?? '', subnet, text));
  const gateway = addressMistake(pool.Gateway ?? '', subnet, text);
  if (gateway !== undefined) wrong.push(`invalid gateway ${pool.Gateway}: ${gateway}`);
  for (const [name, address] of Object.entries(pool.AuxiliaryAddresses ?? {})) {
    const mistake = addressMistake(address, subnet, text);
    if (mistake !== undefined) wrong.push(`invalid auxiliary address ${name}: ${mistake}`);
  }
  return wrong;
}

function rangeMistakes(text: string, subnet: Prefix, subnetText: string): string[] {
  if (text === '') return [];
  const parsed = tryParseCidr(text);
  if (parsed === undefined) return [`invalid ip-range ${text}: invalid CIDR block notation`];
  const range = parsed.subnet;
  if (range.family !== subnet.family)
    return [`invalid ip-range ${text}: parent subnet is an IPv${subnet.family} block`];
  const wrong: string[] = [];
  if (range.length < subnet.length)
    wrong.push(`invalid ip-range ${text}: CIDR block is bigger than its parent subnet ${subnetText}`);
  if (isUnmasked(parsed)) wrong.push(`invalid ip-range ${text}: it should be ${masked(parsed)}`);
  if (!overlaps(subnet, range))
    wrong.push(`invalid ip-range ${text}: parent subnet ${subnetText} doesn't contain ip-range`);
  return wrong;
}

function addressMistake(text: string, subnet: Prefix, subnetText: string): string | undefined {
  if (text === '') return undefined;
  const address = tryParseIp(text);
  if (address === undefined) return 'invalid address';
  if (address.family !== subnet.family) return `parent subnet is an IPv${subnet.family} block`;
  return contains(subnet, address) ? undefined : `parent subnet ${subnetText} doesn't contain this address`;
}

type Parsed = NonNullable<ReturnType<typeof tryParseCidr>>;

function isUnmasked({ address, subnet }: Parsed): boolean {
  return address.value !== subnet.base;
}

function masked({ subnet }: Parsed): string {
  return formatPrefix(subnet);
}
