/** Device nodes of the host for `--device`, `--privileged` and block I/O limits, and the device cgroup's rules. */
import { lstatSync, readdirSync, realpathSync, type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { GantryError } from '#types/errors.ts';
import type { OciDevice, OciDeviceRule } from '#types/oci.ts';
import type { DeviceMapping, HostConfig } from '#wire/engine.ts';

/** Nesting of directories below /dev that is looked at. */
const DEPTH_LIMIT = 16;

const ALLOW_ALL: readonly OciDeviceRule[] = [{ allow: true, access: 'rwm' }];

/** null, zero, full, random, urandom, tty, console; then fuse denied, as docker writes it. */
export const DEFAULT_DEVICE_RULES: readonly OciDeviceRule[] = [
  { allow: false, access: 'rwm' },
  ...[
    [1, 5],
    [1, 3],
    [1, 9],
    [1, 8],
    [5, 0],
    [5, 1],
  ].map(([major = 0, minor = 0]) => ({
    allow: true,
    type: 'c',
    major,
    minor,
    access: 'rwm',
  })),
  { allow: false, type: 'c', major: 10, minor: 229, access: 'rwm' },
];

function numbers(rdev: number): { major: number; minor: number } {
  const device = BigInt(rdev);
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn)),
    minor: Number((device & 0xffn) | ((device >> 12n) & ~0xffn)),
  };
}

function nodeOf(path: string, stats: Stats): OciDevice | undefined {
  const type = stats.isBlockDevice() ? 'b' : stats.isCharacterDevice() ? 'c' : stats.isFIFO() ? 'p' : undefined;
  if (type === undefined) return undefined;
  return { path, type, ...numbers(stats.rdev), fileMode: stats.mode & 0o7777, uid: stats.uid, gid: stats.gid };
}

/** Number of a device node, for block I/O limits. */
export function deviceNumber(path: string): { major: number; minor: number } {
  try {
    return numbers(statSync(path).rdev);
  } catch (cause) {
    throw new GantryError('system', `stat ${path}: no such file or directory`, { cause });
  }
}

function below(directory: string, skip: ReadonlySet<string>, depth = 0): OciDevice[] {
  if (depth > DEPTH_LIMIT) return [];
  const found: OciDevice[] = [];
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) {
      if (!skip.has(entry.name)) found.push(...below(path, skip, depth + 1));
      continue;
    }
    try {
      const node = nodeOf(path, lstatSync(path));
      if (node !== undefined && node.type !== 'p') found.push(node);
    } catch {
      // The node went away while we looked.
    }
  }
  return found;
}

/** Every device node below /dev, for privileged containers. */
export function hostDevices(): OciDevice[] {
  const skip = new Set(['pts', 'shm', 'fd', 'mqueue', '.lxc', '.lxd-mounts', '.udev']);
  return below('/dev', skip).filter((device) => device.path !== '/dev/console');
}

function mapped(mapping: DeviceMapping): OciDevice[] {
  const onHost = mapping.PathOnHost ?? '';
  const inside = mapping.PathInContainer ?? '';
  let failure = 'not a device node';
  try {
    const path = realpathSync(onHost);
    const stats = statSync(path);
    const node = nodeOf(inside, stats);
    if (node !== undefined) return [node];
    if (stats.isDirectory()) {
      const found = below(path, new Set());
      if (found.length > 0)
        return found.map((device) => ({ ...device, path: inside + device.path.slice(path.length) }));
    }
  } catch {
    failure = 'no such file or directory';
  }
  throw new GantryError(
    'system',
    `error gathering device information while adding custom device "${onHost}": ${failure}`,
  );
}

const RULE = /^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$/;

/** Parses one `--device-cgroup-rule`. */
export function deviceRule(text: string): OciDeviceRule {
  const match = RULE.exec(text);
  if (match === null) throw new GantryError('system', `invalid device cgroup rule format: '${text}'`);
  const [, type = 'a', major = '*', minor = '*', access = ''] = match;
  return {
    allow: true,
    type,
    major: major === '*' ? -1 : Number(major),
    minor: minor === '*' ? -1 : Number(minor),
    access,
  };
}

/** Devices and device rules of a container. */
export function containerDevices(hostConfig: HostConfig): { devices: OciDevice[]; rules: readonly OciDeviceRule[] } {
  for (const request of hostConfig.DeviceRequests ?? []) {
    const capabilities = (request.Capabilities ?? []).map((set) => `[${(set ?? []).join(' ')}]`).join(' ');
    throw new GantryError(
      'system',
      `could not select device driver "${request.Driver ?? ''}" with capabilities: [${capabilities}]`,
    );
  }
  const mappings = hostConfig.Devices ?? [];
  if (hostConfig.Privileged === true) {
    const extra = mappings.filter((mapping) => mapping.PathOnHost !== mapping.PathInContainer).flatMap(mapped);
    return { devices: [...hostDevices(), ...extra], rules: ALLOW_ALL };
  }
  const devices: OciDevice[] = [];
  const rules: OciDeviceRule[] = [...DEFAULT_DEVICE_RULES];
  for (const mapping of mappings) {
    for (const device of mapped(mapping)) {
      devices.push(device);
      const { type, major, minor } = device;
      rules.push({ allow: true, type, major, minor, access: mapping.CgroupPermissions || 'rwm' });
    }
  }
  rules.push(...(hostConfig.DeviceCgroupRules ?? []).map(deviceRule));
  return { devices, rules };
}
