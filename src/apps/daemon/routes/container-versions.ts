/** How container answers differ by API version: the engine speaks 1.51, older clients get what they knew. */
import type { ContainerInspectResponse, ContainerSummary } from '#wire/engine.ts';
import type { ApiVersion } from '../http/route.ts';

/** `GET /containers/{id}/json` for a version. */
export function inspectForVersion(found: ContainerInspectResponse, version: ApiVersion): ContainerInspectResponse {
  let result = found;
  if (!version.atLeast(45)) result = withShortIdAliases(result);
  return result;
}

// Compat: below 1.45 the short ID was appended to the aliases of user-defined networks.
function withShortIdAliases(found: ContainerInspectResponse): ContainerInspectResponse {
  const networks = found.NetworkSettings?.Networks ?? {};
  const changed = Object.fromEntries(
    Object.entries(networks).map(([name, settings]) => {
      if (['bridge', 'host', 'none'].includes(name)) return [name, settings];
      const aliases = [...(settings.Aliases ?? []), (found.Id ?? '').slice(0, 12)];
      return [name, { ...settings, Aliases: aliases }];
    }),
  );
  return { ...found, NetworkSettings: { ...found.NetworkSettings, Networks: changed } };
}

/** One row of `GET /containers/json` for a version. */
export function summaryForVersion(summary: ContainerSummary, version: ApiVersion): ContainerSummary {
  if (version.atLeast(46)) return summary;
  const { Annotations: _dropped, ...hostConfig } = summary.HostConfig ?? {};
  return { ...summary, HostConfig: hostConfig };
}
