/** Linux capabilities: names, what this daemon may hand out, and docker's `--cap-add`/`--cap-drop` arithmetic. */
import { GantryError } from '#types/errors.ts';
import type { OciCapabilities } from '#types/oci.ts';

/** In bit order (linux/capability.h). */
const NAMES: readonly string[] =
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'
    .split(' ')
    .map((name) => `CAP_${name}`);

/** An unprivileged container's set, in docker's order. */
export const DEFAULT_CAPABILITIES: readonly string[] =
  'CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE'
    .split(' ')
    .map((name) => `CAP_${name}`);

/** Capabilities in this process's bounding set: neither the kernel nor a restricted daemon can give more. */
export function availableCapabilities(procStatus: string): string[] {
  const hex = /^CapBnd:\s*([0-9a-f]+)$/m.exec(procStatus)?.[1] ?? '0';
  const bits = BigInt(`0x${hex}`);
  return NAMES.filter((_, bit) => ((bits >> BigInt(bit)) & 1n) === 1n);
}

/** Upper case with prefix; `ALL` stays. Throws docker's texts without the option's name. */
export function normaliseCapabilities(names: readonly string[], available: readonly string[]): string[] {
  return names.map((name) => {
    const upper = name.toUpperCase();
    if (upper === 'ALL') return upper;
    const full = upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
    if (!NAMES.includes(full)) throw new GantryError('invalid', `unknown capability: "${full}"`);
    if (!available.includes(full)) {
      throw new GantryError(
        'invalid',
        `capability not supported by your kernel or not available in the current environment: "${full}"`,
      );
    }
    return full;
  });
}

/** The set a container gets. */
export function containerCapabilities(options: {
  readonly add: readonly string[];
  readonly drop: readonly string[];
  readonly privileged: boolean;
  readonly available: readonly string[];
}): string[] {
  const { available } = options;
  if (options.privileged) return [...available];
  const basic = DEFAULT_CAPABILITIES.filter((name) => available.includes(name));
  const add = normaliseCapabilities(options.add, available);
  const drop = normaliseCapabilities(options.drop, available);
  if (add.includes('ALL')) return available.filter((name) => !drop.includes(name));
  if (drop.includes('ALL')) return [...new Set(add)];
  return [...new Set([...basic.filter((name) => !drop.includes(name)), ...add])];
}

/** Inheritable and ambient stay empty, as with docker. */
export function capabilitySets(names: readonly string[]): OciCapabilities {
  return { bounding: names, effective: names, permitted: names };
}
