/** Finds the image that an earlier run of the same step on the same parent left. */
import { goJson, orderRunConfig } from '#services/images/config.ts';
import type { Image, ImageRunConfig } from '#services/images/contract.ts';
import type { ImageStore } from '#services/images/store.ts';

/** The newest child of the image made by this step. */
export function findCachedStep(
  images: ImageStore,
  parent: Image | undefined,
  containerConfig: ImageRunConfig,
): Image | undefined {
  const key = cacheKey(containerConfig);
  let best: Image | undefined;
  for (const candidate of images.list()) {
    if (candidate.parent !== parent?.id) continue;
    const recorded = (candidate.config as { container_config?: ImageRunConfig }).container_config;
    if (recorded === undefined || cacheKey(recorded) !== key) continue;
    if (best === undefined || (candidate.config.created ?? '') > (best.config.created ?? '')) best = candidate;
  }
  return best;
}

/** What must be equal for a step to be the same. */
function cacheKey(config: ImageRunConfig): string {
  const { Hostname: _hostname, Domainname: _domainname, Image: _image, ...rest } = orderRunConfig(config);
  const empty = (value: unknown): boolean =>
    value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0);
  return goJson(Object.fromEntries(Object.entries(rest).filter(([, value]) => !empty(value))));
}
