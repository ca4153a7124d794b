/** The container's end of an endpoint: its addresses, kernel settings and state. Works inside the sandbox. */
import { writeFileSync } from 'node:fs';
import { hasCode } from '#system/kernel/errno.ts';
import { inNetworkNamespace } from '#system/kernel/namespaces.ts';
import { addAddress, setLink } from '#system/netlink/route.ts';
import { GantryError } from '#types/errors.ts';
import type { Endpoint } from './contract.ts';
import type { JoinContext } from './driver.ts';

/** Driver option of an endpoint: comma separated `net.X.Y.IFNAME.Z=V`. */
const SYSCTLS_OPTION = 'com.docker.network.endpoint.sysctls';
/** Prefixes docker gives link-local addresses. */
const LINK_LOCAL_LENGTH = { ipv4: 16, ipv6: 64 };

/** Configures the interface named in `endpoint` and makes it up. */
export function configureInterface(context: JoinContext, endpoint: Endpoint): void {
  const { sandbox, request } = context;
  const { interfaceName } = endpoint;
  const inside = sandbox.netlink.link(interfaceName);
  if (inside === undefined) throw new GantryError('system', `interface ${interfaceName} vanished`);
  const sysctls = request.driverOptions?.[SYSCTLS_OPTION] ?? '';
  inNetworkNamespace(sandbox.path, () => applySettings(interfaceName, endpoint.ipv6Address !== '', sysctls));
  const add = (address: string, prefixLength: number): void =>
    sandbox.netlink.request(addAddress(inside.index, address, prefixLength));
  if (endpoint.ipAddress !== '') add(endpoint.ipAddress, endpoint.prefixLength);
  if (endpoint.ipv6Address !== '') add(endpoint.ipv6Address, endpoint.ipv6PrefixLength);
  for (const address of request.linkLocalAddresses ?? [])
    add(address, address.includes(':') ? LINK_LOCAL_LENGTH.ipv6 : LINK_LOCAL_LENGTH.ipv4);
  sandbox.netlink.request(setLink(inside.index, { up: true }));
}

/** Settings of the new interface; runs inside the container's namespace. */
function applySettings(interfaceName: string, ipv6: boolean, sysctls: string): void {
  try {
    // Compat: a network without IPv6 gives its interface none, link-local addresses included.
    writeFileSync(`/proc/sys/net/ipv6/conf/${interfaceName}/disable_ipv6`, ipv6 ? '0' : '1');
    if (ipv6) writeFileSync(`/proc/sys/net/ipv6/conf/${interfaceName}/accept_ra`, '0');
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
    if (ipv6) throw new GantryError('system', 'IPv6 is disabled on this host', { cause: error });
  }
  for (const setting of sysctls.split(',').filter((text) => text !== '')) {
    const match = /^net\.(ipv4|ipv6|mpls)\.(conf|neigh|input)\.(?:IFNAME|ifname)\.([a-z0-9_]+)=(.*)$/.exec(setting);
    if (match === null) throw new GantryError('invalid', `unrecognised network interface sysctl '${setting}'`);
    writeFileSync(`/proc/sys/net/${match[1]}/${match[2]}/${interfaceName}/${match[3]}`, match[4] ?? '');
  }
}
