/**
 * Seccomp profiles in docker's format (archMap, includes and excludes) turned into the OCI form for one
 * architecture, kernel and capability set.
 */

import { GantryError } from '#types/errors.ts';
import type { OciSeccomp } from '#types/oci.ts';
import defaultProfile from './seccomp-default.json' with { type: 'json' };

interface Condition {
  readonly arches?: readonly string[];
  readonly caps?: readonly string[];
  readonly minKernel?: string;
}

interface ProfileSyscall {
  readonly name?: string;
  readonly names?: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly object[] | null;
  readonly includes?: Condition | null;
  readonly excludes?: Condition | null;
}

interface Profile {
  readonly defaultAction?: string;
  readonly defaultErrnoRet?: number;
  readonly architectures?: readonly string[] | null;
  readonly archMap?: readonly { architecture: string; subArchitectures?: readonly string[] | null }[] | null;
  readonly flags?: readonly string[];
  readonly listenerPath?: string;
  readonly listenerMetadata?: string;
  readonly syscalls?: readonly ProfileSyscall[] | null;
}

/** What conditions in a profile are compared with. */
export interface SeccompTarget {
  /** As in profiles: amd64, arm64 … */
  readonly architecture: string;
  /** `6.18.44`. */
  readonly kernelRelease: string;
  /** Secondary ABIs (`SCMP_ARCH_…`) this kernel has no entry for: rules for them would only cost time. */
  readonly absentArchitectures?: readonly string[];
  readonly capabilities: readonly string[];
}

const NATIVE: Readonly<Record<string, string>> = {
  amd64: 'SCMP_ARCH_X86_64',
  arm64: 'SCMP_ARCH_AARCH64',
  riscv64: 'SCMP_ARCH_RISCV64',
  s390x: 'SCMP_ARCH_S390X',
  loong64: 'SCMP_ARCH_LOONGARCH64',
};

/**
 * The built-in profile for a target. Its rules are a set; the file lists calls by falling number, because
 * libseccomp inserts each into a list sorted by number, where the next lower one has the shortest way.
 */
export function defaultSeccomp(target: SeccompTarget): OciSeccomp | undefined {
  const converted = convert(defaultProfile as Profile, target);
  const absent = target.absentArchitectures ?? [];
  if (converted?.architectures === undefined || absent.length === 0) return converted;
  return { ...converted, architectures: converted.architectures.filter((name) => !absent.includes(name)) };
}

/** A user's profile (JSON text) for a target. */
export function customSeccomp(json: string, target: SeccompTarget): OciSeccomp | undefined {
  let profile: Profile;
  try {
    profile = JSON.parse(json) as Profile;
  } catch (cause) {
    throw new GantryError('system', `decoding seccomp profile failed: ${(cause as Error).message}`, { cause });
  }
  return convert(profile, target);
}

function convert(profile: Profile, target: SeccompTarget): OciSeccomp | undefined {
  const calls = profile.syscalls ?? [];
  if ((profile.defaultAction ?? '') === '' && calls.length === 0) return undefined;
  if ((profile.architectures ?? []).length > 0 && (profile.archMap ?? []).length > 0) {
    throw new GantryError(
      'system',
      "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
    );
  }
  const native = NATIVE[target.architecture];
  const mapped = (profile.archMap ?? []).find((entry) => entry.architecture === native);
  const architectures =
    mapped === undefined
      ? [...(profile.architectures ?? [])]
      : [mapped.architecture, ...(mapped.subArchitectures ?? [])];
  const { defaultErrnoRet, flags, listenerPath, listenerMetadata } = profile;
  return {
    defaultAction: profile.defaultAction ?? '',
    ...(defaultErrnoRet === undefined ? {} : { defaultErrnoRet }),
    ...(architectures.length === 0 ? {} : { architectures }),
    ...(flags === undefined ? {} : { flags }),
    ...(listenerPath === undefined ? {} : { listenerPath }),
    ...(listenerMetadata === undefined ? {} : { listenerMetadata }),
    syscalls: calls.filter((call) => applies(call, target)).map(syscall),
  };
}

function syscall(call: ProfileSyscall): object {
  if (call.name !== undefined && call.name !== '' && (call.names ?? []).length > 0) {
    throw new GantryError(
      'system',
      "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
    );
  }
  return {
    names: call.name === undefined || call.name === '' ? (call.names ?? []) : [call.name],
    action: call.action,
    ...(call.errnoRet === undefined ? {} : { errnoRet: call.errnoRet }),
    ...((call.args ?? []).length === 0 ? {} : { args: call.args }),
  };
}

function applies(call: ProfileSyscall, target: SeccompTarget): boolean {
  const { includes, excludes } = call;
  if (excludes != null) {
    if (excludes.arches?.includes(target.architecture)) return false;
    if (excludes.caps?.some((name) => target.capabilities.includes(name))) return false;
    if (excludes.minKernel !== undefined && kernelAtLeast(target.kernelRelease, excludes.minKernel)) return false;
  }
  if (includes != null) {
    const { arches = [], caps = [], minKernel } = includes;
    if (arches.length > 0 && !arches.includes(target.architecture)) return false;
    if (!caps.every((name) => target.capabilities.includes(name))) return false;
    if (minKernel !== undefined && !kernelAtLeast(target.kernelRelease, minKernel)) return false;
  }
  return true;
}

/** Whether a kernel release such as `6.1.0-13-amd64` is at least `4.8`. */
export function kernelAtLeast(release: string, wanted: string): boolean {
  const [major = 0, minor = 0] = release.split('.').map((part) => Number.parseInt(part, 10));
  const [wantedMajor = 0, wantedMinor = 0] = wanted.split('.').map((part) => Number.parseInt(part, 10));
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}
