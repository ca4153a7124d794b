/** A container's configuration completed with its image's, by docker's rules. Pure; neither input is changed. */
import type { ImageRunConfig } from '#services/images/contract.ts';
import { GantryError } from '#types/errors.ts';
import type { ContainerConfig } from '#wire/engine.ts';

type Keys = Record<string, Record<string, never>>;

/** Merges; throws `no command specified` when there is nothing to run. */
export function mergeImage(config: ContainerConfig, image: ImageRunConfig | undefined): ContainerConfig {
  const merged = image === undefined ? { ...config } : merge(config, image);
  // Compat: --entrypoint "" arrives as [""] and means none.
  if (merged.Entrypoint?.length === 1 && merged.Entrypoint[0] === '') delete merged.Entrypoint;
  if ((merged.Entrypoint ?? []).length === 0 && (merged.Cmd ?? []).length === 0) {
    throw new GantryError('invalid', 'no command specified');
  }
  return merged;
}

/** Entry point joined with command. */
export function argumentsOf(config: ContainerConfig): string[] {
  return [...(config.Entrypoint ?? []), ...(config.Cmd ?? [])];
}

function merge(config: ContainerConfig, image: ImageRunConfig): ContainerConfig {
  const entrypoint = config.Entrypoint ?? [];
  const merged: ContainerConfig = {
    ...config,
    User: config.User || (image.User ?? ''),
    Env: environment(config.Env ?? [], image.Env),
    Labels: { ...image.Labels, ...config.Labels },
    WorkingDir: config.WorkingDir || (image.WorkingDir ?? ''),
  };
  const volumes = union(config.Volumes, image.Volumes as Keys | null | undefined);
  // Compat: nothing in either is what the image has, null or {}.
  merged.Volumes = volumes ?? (image.Volumes as Keys | null | undefined) ?? (null as unknown as Keys);
  const ports = union(config.ExposedPorts, image.ExposedPorts as Keys | null | undefined);
  if (ports !== undefined) merged.ExposedPorts = ports;
  const stopSignal = config.StopSignal || image.StopSignal;
  if (stopSignal) merged.StopSignal = stopSignal;
  if (entrypoint.length === 0) {
    if ((config.Cmd ?? []).length === 0 && image.Cmd != null) merged.Cmd = [...image.Cmd];
    if (config.Entrypoint == null && image.Entrypoint != null) merged.Entrypoint = [...image.Entrypoint];
  }
  const health = image.Healthcheck;
  if (health !== undefined && health !== null) {
    const own = config.Healthcheck;
    merged.Healthcheck = {
      ...own,
      Test: (own?.Test ?? []).length > 0 ? (own?.Test ?? []) : (health.Test ?? []),
      ...firstSet('Interval', own?.Interval, health.Interval),
      ...firstSet('Timeout', own?.Timeout, health.Timeout),
      ...firstSet('StartPeriod', own?.StartPeriod, health.StartPeriod),
      ...firstSet('StartInterval', own?.StartInterval, health.StartInterval),
      ...firstSet('Retries', own?.Retries, health.Retries),
    };
  }
  return merged;
}

function firstSet(name: string, own: number | undefined, inherited: number | undefined): Record<string, number> {
  const value = own || inherited;
  return value ? { [name]: value } : {};
}

function union(own: Keys | null | undefined, inherited: Keys | null | undefined): Keys | undefined {
  const both = { ...inherited, ...own };
  return Object.keys(both).length === 0 ? undefined : both;
}

function environment(own: readonly string[], inherited: readonly string[] | null | undefined): string[] {
  // Compat: an image without Env makes the container's null, not [].
  if (own.length === 0 && inherited == null) return null as unknown as string[];
  return mergeEnvironment(own, inherited ?? []);
}

function mergeEnvironment(own: readonly string[], inherited: readonly string[]): string[] {
  const names = new Set(own.map((pair) => pair.split('=', 1)[0]));
  return [...own, ...inherited.filter((pair) => !names.has(pair.split('=', 1)[0]))];
}
