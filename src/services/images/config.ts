/**
 * Reading and writing image configs (OCI image-spec config.md, docker's superset).
 *
 * Parsing checks what later code relies on; the bytes themselves are never rewritten. New configs are written
 * with docker's field order so that equal input gives equal IDs.
 */
import { type Digest, isDigest } from '#types/digest.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { ImageConfig, ImageHistoryEntry, ImageRunConfig } from './contract.ts';

/** Layers of one image, as docker's layer store allows. */
export const LAYER_COUNT_LIMIT = 125;

function record(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Parses config bytes; throws `invalid`. */
export function parseImageConfig(bytes: Buffer): ImageConfig {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new GantryError('invalid', `invalid image JSON: ${errorMessage(error)}`, { cause: error });
  }
  if (!record(value)) throw new GantryError('invalid', 'invalid image JSON: not an object');
  const rootfs = value['rootfs'];
  if (!record(rootfs)) throw new GantryError('invalid', 'invalid image JSON, no RootFS key');
  const diffIds = rootfs['diff_ids'] ?? [];
  if (!Array.isArray(diffIds) || !diffIds.every((entry) => typeof entry === 'string' && isDigest(entry))) {
    throw new GantryError('invalid', 'invalid image JSON: invalid checksum digest format');
  }
  if (diffIds.length > LAYER_COUNT_LIMIT) throw new GantryError('invalid', 'max depth exceeded');
  const config = value['config'];
  if (config !== undefined && config !== null && !record(config)) {
    throw new GantryError('invalid', 'invalid image JSON: config is not an object');
  }
  checkRunConfig(config ?? {});
  const history = value['history'] ?? [];
  if (!Array.isArray(history) || !history.every(record)) {
    throw new GantryError('invalid', 'invalid image JSON: history is not a list of objects');
  }
  for (const field of ['architecture', 'os', 'variant', 'created', 'author', 'comment']) {
    const text = value[field];
    if (text !== undefined && text !== null && typeof text !== 'string') {
      throw new GantryError('invalid', `invalid image JSON: ${field} is not a string`);
    }
  }
  const os = value['os'];
  return {
    ...value,
    architecture: typeof value['architecture'] === 'string' ? value['architecture'] : '',
    os: typeof os === 'string' && os !== '' ? os : 'linux',
    ...(record(config) ? { config: config as ImageRunConfig } : {}),
    history: history as ImageHistoryEntry[],
    rootfs: { type: 'layers', diff_ids: diffIds as Digest[] },
  } as ImageConfig;
}

/** Refuses a run-time part whose fields have other types than the code relies on. */
function checkRunConfig(config: unknown): void {
  if (!record(config)) return;
  const wrong = (field: string): GantryError =>
    new GantryError('invalid', `invalid image JSON: config.${field} has the wrong type`);
  for (const field of ['Env', 'Cmd', 'Entrypoint', 'Shell', 'OnBuild']) {
    const list = config[field];
    if (list === undefined || list === null) continue;
    if (!Array.isArray(list) || !list.every((entry) => typeof entry === 'string')) throw wrong(field);
  }
  for (const field of ['Labels', 'Volumes', 'ExposedPorts']) {
    const map = config[field];
    if (map !== undefined && map !== null && !record(map)) throw wrong(field);
  }
  for (const field of ['User', 'WorkingDir', 'StopSignal']) {
    const text = config[field];
    if (text !== undefined && text !== null && typeof text !== 'string') throw wrong(field);
  }
}

/** Everything a new config is made of. */
export interface NewImageConfig {
  readonly architecture: string;
  readonly os: string;
  readonly variant?: string;
  readonly created: string;
  readonly author?: string;
  readonly comment?: string;
  readonly container?: string;
  readonly containerConfig?: ImageRunConfig;
  readonly config: ImageRunConfig;
  readonly diffIds: readonly Digest[];
  readonly history: readonly ImageHistoryEntry[];
}

/** Encodes a config with keys in docker's order. */
export function encodeImageConfig(parts: NewImageConfig): Buffer {
  const value = {
    architecture: parts.architecture,
    ...(parts.variant === undefined ? {} : { variant: parts.variant }),
    ...(parts.author ? { author: parts.author } : {}),
    ...(parts.comment ? { comment: parts.comment } : {}),
    config: orderRunConfig(parts.config),
    ...(parts.container ? { container: parts.container } : {}),
    ...(parts.containerConfig === undefined ? {} : { container_config: orderRunConfig(parts.containerConfig) }),
    created: parts.created,
    docker_version: '28.5.2',
    history: parts.history,
    os: parts.os,
    rootfs: { type: 'layers', diff_ids: parts.diffIds },
  };
  return Buffer.from(goJson(value));
}

/** Go's JSON: as JSON.stringify, with `<`, `>`, `&` and the two line separators escaped. */
export function goJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** The run-time part with Go's field order and docker's always-present fields. */
export function orderRunConfig(config: ImageRunConfig): Record<string, unknown> {
  const sorted = <T>(map: Readonly<Record<string, T>> | null | undefined): Record<string, T> | null =>
    map === null || map === undefined
      ? null
      : Object.fromEntries(Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1)));
  const some = (map: object | null | undefined): boolean =>
    map !== null && map !== undefined && Object.keys(map).length > 0;
  return {
    Hostname: config['Hostname'] ?? '',
    Domainname: config['Domainname'] ?? '',
    User: config.User ?? '',
    AttachStdin: config['AttachStdin'] ?? false,
    AttachStdout: config['AttachStdout'] ?? false,
    AttachStderr: config['AttachStderr'] ?? false,
    ...(some(config.ExposedPorts) ? { ExposedPorts: sorted(config.ExposedPorts) } : {}),
    Tty: config['Tty'] ?? false,
    OpenStdin: config['OpenStdin'] ?? false,
    StdinOnce: config['StdinOnce'] ?? false,
    Env: config.Env ?? null,
    Cmd: config.Cmd ?? null,
    ...(config.Healthcheck ? { Healthcheck: config.Healthcheck } : {}),
    ...(config.ArgsEscaped ? { ArgsEscaped: true } : {}),
    Image: config['Image'] ?? '',
    Volumes: sorted(config.Volumes),
    WorkingDir: config.WorkingDir ?? '',
    Entrypoint: config.Entrypoint ?? null,
    OnBuild: config.OnBuild ?? null,
    Labels: sorted(config.Labels),
    ...(config.StopSignal ? { StopSignal: config.StopSignal } : {}),
    ...(config.StopTimeout === undefined || config.StopTimeout === null ? {} : { StopTimeout: config.StopTimeout }),
    ...(config.Shell && config.Shell.length > 0 ? { Shell: config.Shell } : {}),
  };
}
