/** Which entries of an index run on a platform, best first: containerd's `platforms.Only`, pure. */
import { cpuInfo } from '#system/kernel/cpu-flags.ts';
import { hostPlatform, normaliseArchitecture, type Platform } from '#types/platform.ts';

const ARM_VARIANTS: readonly string[] = ['v8', 'v7', 'v6', 'v5'];

/** Platforms that satisfy `wanted`, itself first: a lower variant, or the 32-bit sibling. */
export function compatiblePlatforms(wanted: Platform): Platform[] {
  const { os } = wanted;
  const { architecture, variant } = normaliseArchitecture(wanted.architecture, wanted.variant);
  const make = (name: string, kind: string): Platform => ({
    os,
    architecture: name,
    ...(kind === '' ? {} : { variant: kind }),
  });
  const first = make(architecture, variant);
  if (architecture === 'amd64') {
    const level = /^v([2-9])$/.exec(variant)?.[1];
    const lower: Platform[] = [];
    for (let at = Number(level ?? 1) - 1; at >= 1; at -= 1) lower.push(make('amd64', at === 1 ? '' : `v${at}`));
    return [first, ...lower, make('386', '')];
  }
  if (architecture === 'arm64') return [first, ...(variant === '' ? [] : [make('arm64', '')]), ...armFrom('v8', make)];
  if (architecture === 'arm') return armFrom(variant, make);
  return [first];
}

function armFrom(variant: string, make: (name: string, kind: string) => Platform): Platform[] {
  const at = ARM_VARIANTS.indexOf(variant);
  return at < 0 ? [make('arm', variant)] : ARM_VARIANTS.slice(at).map((kind) => make('arm', kind));
}

function equal(left: Platform, right: Platform): boolean {
  const a = normaliseArchitecture(left.architecture, left.variant);
  const b = normaliseArchitecture(right.architecture, right.variant);
  return left.os === right.os && a.architecture === b.architecture && a.variant === b.variant;
}

/** The entries that satisfy `wanted`, best first; entries without a platform come last. */
export function chooseManifests<Entry extends { readonly platform?: Platform }>(
  manifests: readonly Entry[],
  wanted: Platform,
): Entry[] {
  const compatible = compatiblePlatforms(wanted);
  const rank = (entry: Entry): number => {
    const { platform } = entry;
    if (platform === undefined) return compatible.length;
    return compatible.findIndex((candidate) => equal(candidate, platform));
  };
  return manifests
    .map((entry) => ({ entry, rank: rank(entry) }))
    .filter((item) => item.rank >= 0)
    .sort((a, b) => a.rank - b.rank)
    .map(({ entry }) => entry);
}

/** Groups of CPU flags that make the levels of x86-64. */
const LEVEL_FLAGS: readonly (readonly string[])[] = [
  ['cx16', 'lahf_lm', 'popcnt', 'sse4_1', 'sse4_2', 'ssse3'],
  ['avx', 'avx2', 'bmi1', 'bmi2', 'f16c', 'fma', 'abm', 'movbe', 'xsave'],
  ['avx512f', 'avx512bw', 'avx512cd', 'avx512dq', 'avx512vl'],
];

/** The level (`v1` … `v4`) of an x86-64 CPU from the text of /proc/cpuinfo. */
export function amd64Level(cpuinfo: string): string {
  const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1]?.split(/\s+/) ?? []);
  let level = 1;
  for (const group of LEVEL_FLAGS) {
    if (!group.every((flag) => flags.has(flag))) break;
    level += 1;
  }
  return `v${level}`;
}

/** The host's platform. Compat: without a wish, images built for a higher level of the CPU come first. */
export function ownPlatform(): Platform {
  const host = hostPlatform();
  return host.architecture === 'amd64' ? { ...host, variant: amd64Level(cpuInfo()) } : host;
}
