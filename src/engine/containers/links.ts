/**
 * Legacy links (`--link name:alias`) on the default bridge: host names and environment variables that tell
 * a container where another one is. Resolved anew at each start.
 */
import type { ContainerRecord } from '#services/containers/container.ts';
import { isAlive } from '#services/containers/container.ts';
import type { LiveContainer } from '#services/containers/live.ts';
import type { ContainerStore } from '#services/containers/store.ts';
import { GantryError } from '#types/errors.ts';
import { isUserDefined } from './create/validate.ts';

/** A link to a running container. */
export interface Link {
  readonly container: LiveContainer;
  readonly ip: string;
  readonly names: readonly string[];
  readonly environment: readonly string[];
}

/** The container's legacy links; on user-defined networks links are names for the resolver instead. */
export function legacyLinks({ hostConfig }: ContainerRecord): readonly string[] {
  return isUserDefined(hostConfig.NetworkMode ?? 'default') ? [] : (hostConfig.Links ?? []);
}

/** Resolves the legacy links. Throws `invalid` when a linked container does not run. */
export function resolveLinks(containers: Pick<ContainerStore, 'find'>, record: ContainerRecord): Link[] {
  return legacyLinks(record).map((text) => {
    const [reference, alias] = parseLink(text);
    const container = containers.find(reference);
    if (!isAlive(container.state)) {
      throw new GantryError(
        'invalid',
        `Cannot link to a non running container: /${container.record.name} AS /${record.name}/${alias}`,
      );
    }
    const endpoints = container.record.sandbox?.endpoints ?? [];
    const ip = endpoints.find(({ networkName }) => networkName === 'bridge')?.ipAddress;
    if (ip === undefined)
      throw new GantryError('system', `container ${container.id} not attached to default bridge network`);
    const names = [alias, container.record.config.Hostname ?? '', container.record.name];
    return {
      container,
      ip,
      names: [...new Set(names.filter((name) => name !== ''))],
      environment: linkEnvironment(record.name, alias, ip, container.record),
    };
  });
}

/** `name:alias`, `name`, or the stored form `/name:/parent/alias`. */
export function parseLink(text: string): [reference: string, alias: string] {
  const colon = text.indexOf(':');
  const reference = (colon < 0 ? text : text.slice(0, colon)).replace(/^\//, '');
  const alias = colon < 0 ? reference : text.slice(colon + 1);
  const slash = alias.lastIndexOf('/');
  return [reference, slash < 0 ? alias : alias.slice(slash + 1)];
}

function linkEnvironment(parent: string, alias: string, ip: string, child: ContainerRecord): string[] {
  const prefix = alias.replaceAll('-', '_').toUpperCase();
  const ports = Object.keys(child.config.ExposedPorts ?? {}).sort(comparePorts);
  const environment: string[] = [];
  const first = ports[0];
  if (first !== undefined) {
    const [port, protocol] = first.split('/');
    environment.push(`${prefix}_PORT=${protocol}://${ip}:${port}`);
  }
  for (const text of ports) {
    const [port, protocol = 'tcp'] = text.split('/');
    const key = `${prefix}_PORT_${port}_${protocol.toUpperCase()}`;
    environment.push(
      `${key}=${protocol}://${ip}:${port}`,
      `${key}_ADDR=${ip}`,
      `${key}_PORT=${port}`,
      `${key}_PROTO=${protocol}`,
    );
  }
  environment.push(`${prefix}_NAME=/${parent}/${alias}`);
  for (const variable of child.config.Env ?? []) {
    const name = variable.split('=', 1)[0] ?? '';
    if (name === 'HOME' || name === 'PATH') continue;
    environment.push(`${prefix}_ENV_${variable}`);
  }
  return environment;
}

function comparePorts(a: string, b: string): number {
  return Number.parseInt(a, 10) - Number.parseInt(b, 10) || (a < b ? -1 : 1);
}
