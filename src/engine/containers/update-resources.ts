/** `docker update`: a container's limits and restart policy changed in place. Pure. */

import { updateResources } from '#services/spec/resources.ts';
import { GantryError } from '#types/errors.ts';
import type { OciResources } from '#types/oci.ts';
import type { ContainerUpdateRequest, HostConfig } from '#wire/engine.ts';
import type { RequestVersion } from './create/adjust-version.ts';
import { checkResources, type ResourceHost, type ResourceLimits } from './create/resource-rules.ts';
import { checkRestartPolicy } from './create/validate.ts';

export interface UpdatePlan {
  readonly hostConfig: HostConfig;
  /** For a running container. */
  readonly resources: OciResources;
  readonly warnings: readonly string[];
}

/** Checks a request against a container and merges it. */
export function planUpdate(
  container: { readonly id: string; readonly hostConfig: HostConfig },
  request: ContainerUpdateRequest,
  context: { readonly host: ResourceHost; readonly version: RequestVersion },
): UpdatePlan {
  const { RestartPolicy: restart, ...limits } = adjusted(request, context.version);
  if (restart !== undefined) checkRestartPolicy(restart);
  const { resources: wanted, warnings } = checkResources<ResourceLimits>(limits, context.host, { update: true });
  const merged = merge(container, wanted);
  if (restart?.Name) {
    if (merged.AutoRemove === true && restart.Name !== 'no') {
      conflict(container.id, 'Restart policy cannot be updated because AutoRemove is enabled for the container');
    }
    merged.RestartPolicy = { Name: restart.Name, MaximumRetryCount: restart.MaximumRetryCount ?? 0 };
  }
  return { hostConfig: merged, resources: updateResources(wanted), warnings };
}

function conflict(id: string, message: string): never {
  throw new GantryError('invalid', `Cannot update container ${id}: ${message}`);
}

function adjusted(request: ContainerUpdateRequest, version: RequestVersion): ContainerUpdateRequest {
  const copy: ContainerUpdateRequest & { KernelMemory?: number | undefined } = { ...request };
  if (version.atLeast(42)) delete copy.KernelMemory;
  if (!version.atLeast(40)) delete copy.PidsLimit;
  if (copy.PidsLimit != null && copy.PidsLimit <= 0) copy.PidsLimit = 0;
  return copy;
}

/** Fields that a non-zero value replaces. Compat: block I/O device lists are ignored below API 1.55. */
const REPLACED = [
  'BlkioWeight',
  'CpuShares',
  'NanoCpus',
  'CpuPeriod',
  'CpuQuota',
  'CpusetCpus',
  'CpusetMems',
  'Memory',
  'MemorySwap',
  'MemoryReservation',
  'KernelMemory',
  'CpuRealtimePeriod',
  'CpuRealtimeRuntime',
] as const;

function merge(
  container: { readonly id: string; readonly hostConfig: HostConfig },
  wanted: ResourceLimits,
): HostConfig {
  const { id, hostConfig } = container;
  const set = (value: number | undefined): boolean => (value ?? 0) > 0;
  const busy = (what: string, already: string): never =>
    conflict(id, `Conflicting options: ${what} cannot be updated as ${already} has already been set`);
  if (set(wanted.NanoCpus) && set(hostConfig.CpuPeriod)) busy('Nano CPUs', 'CPU Period');
  if (set(wanted.NanoCpus) && set(hostConfig.CpuQuota)) busy('Nano CPUs', 'CPU Quota');
  if (set(wanted.CpuPeriod) && set(hostConfig.NanoCpus)) busy('CPU Period', 'NanoCPUs');
  if (set(wanted.CpuQuota) && set(hostConfig.NanoCpus)) busy('CPU Quota', 'NanoCPUs');
  const memory = wanted.Memory ?? 0;
  // Compat: also when swap is unlimited (-1), as docker compares plain numbers.
  if (memory !== 0 && memory > (hostConfig.MemorySwap ?? 0) && (wanted.MemorySwap ?? 0) === 0) {
    conflict(
      id,
      'Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time',
    );
  }
  const merged: Record<string, unknown> = { ...hostConfig };
  for (const field of REPLACED) if (wanted[field]) merged[field] = wanted[field];
  if (wanted.PidsLimit != null) merged['PidsLimit'] = wanted.PidsLimit;
  return merged as HostConfig;
}
