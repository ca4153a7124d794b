/**
 * Which of a container's endpoints gives its default routes, and with them publishes its ports: the one of highest
 * priority, one that leads outside before an internal one, one of both families before others, then by network
 * name, as docker chooses. Pure.
 */
import type { EndpointRecord } from './driver.ts';

/** An endpoint of the container, and whether its network is internal. */
export interface Candidate {
  readonly record: EndpointRecord;
  readonly internal: boolean;
}

/** The chosen endpoints; one of them for both families where there is such a one. */
export interface Gateways {
  readonly ipv4: EndpointRecord | undefined;
  readonly ipv6: EndpointRecord | undefined;
}

/** Whether an endpoint has a way outside for this family. */
export function leadsOut({ endpoint, routesByDevice }: EndpointRecord, family: 4 | 6): boolean {
  const [gateway, address] =
    family === 4 ? [endpoint.gateway, endpoint.ipAddress] : [endpoint.ipv6Gateway, endpoint.ipv6Address];
  return gateway !== '' || (routesByDevice === true && address !== '');
}

function gatewayCount({ record }: Candidate): number {
  return Number(leadsOut(record, 4)) + Number(leadsOut(record, 6));
}

/** Best first. */
export function sortCandidates<T extends Candidate>(candidates: readonly T[]): T[] {
  const priority = ({ record }: T): number => record.gatewayPriority ?? 0;
  const name = ({ record }: T): string => record.endpoint.networkName;
  return [...candidates].sort(
    (a, b) =>
      priority(b) - priority(a) ||
      Number(a.internal) - Number(b.internal) ||
      gatewayCount(b) - gatewayCount(a) ||
      (name(a) < name(b) ? -1 : 1),
  );
}

/** Chooses among the endpoints of one container. */
export function chooseGateways(candidates: readonly Candidate[]): Gateways {
  let ipv4: EndpointRecord | undefined;
  let ipv6: EndpointRecord | undefined;
  for (const candidate of sortCandidates(candidates)) {
    const { record } = candidate;
    // Compat: the first endpoint of both families wins over better ones of a single family.
    if (gatewayCount(candidate) === 2) return { ipv4: record, ipv6: record };
    if (leadsOut(record, 4)) ipv4 ??= record;
    if (leadsOut(record, 6)) ipv6 ??= record;
  }
  return { ipv4, ipv6 };
}
