/**
 * The driver options of a bridge network (`docker network create -o`), parsed with docker's texts. Options this
 * driver does not know are kept and shown but mean nothing, as in docker. Pure.
 */
import { GantryError } from '#types/errors.ts';
import type { Id } from '#types/ids.ts';
import { tryParseIp } from './address.ts';
import type { GatewayMode } from './firewall.ts';

/** A bridge network's options with their defaults. */
export interface BridgeSettings {
  readonly name: string;
  /** 0: the kernel's default. */
  readonly mtu: number;
  readonly icc: boolean;
  readonly masquerade: boolean;
  readonly gatewayMode: { readonly ipv4: GatewayMode; readonly ipv6: GatewayMode };
  /** Host address of published ports that name none; '' for all. */
  readonly hostBinding: string;
  /** Source address of outgoing connections, '' for the outgoing interface's. */
  readonly source: { readonly ipv4: string; readonly ipv6: string };
  /** The bridge gets no IPv4 address: somebody else is the gateway. */
  readonly inhibitIpv4: boolean;
  readonly interfacePrefix: string;
  readonly trusted: readonly string[];
}

const PREFIX = 'com.docker.network.';
const BRIDGE_PREFIX = `${PREFIX}bridge.`;
/** IFNAMSIZ without its NUL. */
const INTERFACE_NAME_MAX_BYTES = 15;
const MODES: readonly string[] = ['nat', 'nat-unprotected', 'routed', 'isolated'];

/** Go's strconv.ParseBool; undefined for other words. */
export function parseGoBoolean(text: string): boolean | undefined {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true;
  return ['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text) ? false : undefined;
}

function refuse(label: string, value: string, problem: string): never {
  throw new GantryError('invalid', `failed to parse ${label} value: ${value} (${problem})`);
}

/** Whether the kernel takes it as an interface name; it also goes into rules between quotes. */
export function isInterfaceName(name: string): boolean {
  return (
    Buffer.byteLength(name) <= INTERFACE_NAME_MAX_BYTES && /^[^\s/:"\\*]+$/.test(name) && name !== '.' && name !== '..'
  );
}

/** Parses the options of the network `id`. */
export function parseBridgeSettings(
  options: Readonly<Record<string, string>>,
  id: Id,
  internal: boolean,
): BridgeSettings {
  const text = (key: string): string => options[key] ?? '';
  const flag = (key: string, absent: boolean): boolean => {
    const value = options[key];
    if (value === undefined) return absent;
    return (
      parseGoBoolean(value) ?? refuse(key, value, `strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`)
    );
  };
  const address = (key: string): string => {
    const value = options[key];
    if (value === undefined) return '';
    return tryParseIp(value) === undefined ? refuse(key, value, 'nil ip') : value;
  };
  const mode = (key: string): GatewayMode => {
    const value = options[key];
    if (value === undefined) return 'nat';
    return MODES.includes(value) ? (value as GatewayMode) : refuse(key, value, `unknown gateway mode ${value}`);
  };
  const settings: BridgeSettings = {
    name: text(`${BRIDGE_PREFIX}name`) || `br-${id.slice(0, 12)}`,
    mtu: parseMtu(options[`${PREFIX}driver.mtu`]),
    icc: flag(`${BRIDGE_PREFIX}enable_icc`, true),
    masquerade: flag(`${BRIDGE_PREFIX}enable_ip_masquerade`, true),
    gatewayMode: { ipv4: mode(`${BRIDGE_PREFIX}gateway_mode_ipv4`), ipv6: mode(`${BRIDGE_PREFIX}gateway_mode_ipv6`) },
    hostBinding: address(`${BRIDGE_PREFIX}host_binding_ipv4`),
    source: { ipv4: address(`${PREFIX}host_ipv4`), ipv6: address(`${PREFIX}host_ipv6`) },
    inhibitIpv4: flag(`${BRIDGE_PREFIX}inhibit_ipv4`, false),
    interfacePrefix: text(`${PREFIX}container_iface_prefix`) || 'eth',
    trusted: text(`${BRIDGE_PREFIX}trusted_host_interfaces`)
      .split(':')
      .filter((name) => name !== ''),
  };
  for (const name of [settings.name, ...settings.trusted]) {
    if (!isInterfaceName(name)) throw new GantryError('invalid', `invalid interface name: ${JSON.stringify(name)}`);
  }
  // Compat: two prefixes share nothing but the kernel's limit; the number is appended.
  if (!isInterfaceName(`${settings.interfacePrefix}99`))
    throw new GantryError('invalid', `invalid interface prefix: ${JSON.stringify(settings.interfacePrefix)}`);
  const { ipv4, ipv6 } = settings.gatewayMode;
  if (!internal && (ipv4 === 'isolated' || ipv6 === 'isolated'))
    throw new GantryError('system', "gateway mode 'isolated' can only be used for an internal network");
  return settings;
}

const MTU_KEY = `${PREFIX}driver.mtu`;

function parseMtu(text: string | undefined): number {
  if (text === undefined) return 0;
  if (!/^[+-]?\d{1,9}$/.test(text))
    refuse(MTU_KEY, text, `strconv.Atoi: parsing ${JSON.stringify(text)}: invalid syntax`);
  const mtu = Number(text);
  if (mtu < 0) throw new GantryError('invalid', `invalid MTU number: ${mtu}`);
  return mtu;
}
