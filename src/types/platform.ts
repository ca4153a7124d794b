/**
 * Platforms `os/architecture/variant` (OCI image-spec, normalised as containerd does): pure parsing,
 * formatting and matching.
 */
import { GantryError } from './errors.ts';

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  readonly osVersion?: string;
}

const KNOWN_OS = new Set(
  'aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos'.split(
    ' ',
  ),
);
const KNOWN_ARCHITECTURES = new Set(
  '386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc riscv riscv64 s390 s390x sparc sparc64 wasm'.split(
    ' ',
  ),
);

/** Canonical architecture and variant. */
export function normaliseArchitecture(architecture: string, variant = ''): { architecture: string; variant: string } {
  const arch = architecture.toLowerCase();
  const kind = variant.toLowerCase();
  switch (arch) {
    case 'i386':
      return { architecture: '386', variant: '' };
    case 'x86_64':
    case 'x86-64':
    case 'amd64':
      return { architecture: 'amd64', variant: kind === 'v1' ? '' : kind };
    case 'aarch64':
    case 'arm64':
      return { architecture: 'arm64', variant: kind === '8' || kind === 'v8' ? '' : kind };
    case 'armhf':
      return { architecture: 'arm', variant: 'v7' };
    case 'armel':
      return { architecture: 'arm', variant: 'v6' };
    case 'arm':
      return {
        architecture: 'arm',
        variant: kind === '' || kind === '7' ? 'v7' : /^[568]$/.test(kind) ? `v${kind}` : kind,
      };
    default:
      return { architecture: arch, variant: kind };
  }
}

function normaliseOs(os: string): string {
  const lower = os.toLowerCase();
  return lower === 'macos' ? 'darwin' : lower;
}

function make(os: string, architecture: string, variant: string): Platform {
  return { os, architecture, ...(variant === '' ? {} : { variant }) };
}

/** The platform this process runs on. */
export function hostPlatform(): Platform {
  const names: Readonly<Record<string, string>> = {
    x64: 'amd64',
    ia32: '386',
    arm64: 'arm64',
    arm: 'arm',
    ppc64: 'ppc64le',
  };
  const { architecture, variant } = normaliseArchitecture(names[process.arch] ?? process.arch);
  return make('linux', architecture, variant);
}

/** Parses `os`, `architecture`, `os/arch` or `os/arch/variant`; missing parts come from the host. */
export function parsePlatform(specifier: string): Platform {
  const fail = (why: string): GantryError => new GantryError('invalid', why);
  if (specifier.includes('*')) throw fail(`"${specifier}": wildcards not yet supported: invalid argument`);
  const parts = specifier.split('/');
  for (const part of parts) {
    if (!/^[A-Za-z0-9_.-]+(?:\([A-Za-z0-9_.+-]*\))?$/.test(part)) {
      throw fail(
        `"${part}" is an invalid component of "${specifier}": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument`,
      );
    }
  }
  const [first = '', second = '', third = ''] = parts;
  const os = normaliseOs(first.replace(/\(.*\)$/, ''));
  if (parts.length === 1) {
    if (KNOWN_OS.has(os)) return { ...hostPlatform(), os };
    const { architecture, variant } = normaliseArchitecture(first);
    if (KNOWN_ARCHITECTURES.has(architecture)) return make('linux', architecture, variant === 'v7' ? '' : variant);
    throw fail(`"${specifier}": unknown operating system or architecture: invalid argument`);
  }
  if (parts.length > 3) throw fail(`"${specifier}": cannot parse platform specifier: invalid argument`);
  const { architecture, variant } = normaliseArchitecture(second, third);
  return make(os, architecture, variant);
}

/** `linux/arm/v7`. */
export function formatPlatform(platform: Platform): string {
  if (platform.os === '') return 'unknown';
  return [platform.os, platform.architecture, platform.variant ?? ''].filter((part) => part !== '').join('/');
}

/** Whether something built for `actual` satisfies `wanted`; a variant is compared only when asked for. */
export function matchesPlatform(wanted: Platform, actual: Platform): boolean {
  const left = normaliseArchitecture(wanted.architecture, wanted.variant);
  const right = normaliseArchitecture(actual.architecture, actual.variant);
  if (normaliseOs(wanted.os) !== normaliseOs(actual.os) || left.architecture !== right.architecture) return false;
  return left.variant === '' || left.variant === right.variant;
}
