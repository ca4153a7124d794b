/** `GET /version`. */
import { execFileSync } from 'node:child_process';
import { release } from 'node:os';
import { API_VERSION, ENGINE_VERSION, MIN_API_VERSION } from '../version.ts';

/** Versions of the programs this engine drives, asked once. */
export interface ToolVersions {
  readonly runc: string;
  readonly runcCommit: string;
  readonly shim: string;
}

const UNKNOWN = 'unknown';
/** A version query that takes longer than this means a broken tool. */
const QUERY_TIMEOUT_MS = 5_000;
let known: ToolVersions | undefined;

/** Asks the installed runc and shim for their versions; `unknown` where one does not answer. */
export function toolVersions(): ToolVersions {
  known ??= readToolVersions();
  return known;
}

function readToolVersions(): ToolVersions {
  const runc = query('runc', ['--version']);
  const shim = query('containerd-shim-runc-v2', ['-v']);
  return {
    runc: /runc version (\S+)/.exec(runc)?.[1] ?? UNKNOWN,
    runcCommit: /commit: (\S+)/.exec(runc)?.[1] ?? UNKNOWN,
    shim: /Version:\s+(\S+)/.exec(shim)?.[1] ?? UNKNOWN,
  };
}

function query(program: string, args: string[]): string {
  try {
    return execFileSync(program, args, {
      encoding: 'utf8',
      timeout: QUERY_TIMEOUT_MS,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  } catch {
    return '';
  }
}

/** Docker's architecture word for this machine. */
export function goArchitecture(): string {
  const names: Readonly<Record<string, string>> = {
    x64: 'amd64',
    ia32: '386',
    arm64: 'arm64',
    arm: 'arm',
    s390x: 's390x',
    ppc64: 'ppc64le',
    riscv64: 'riscv64',
  };
  return names[process.arch] ?? process.arch;
}

/** The answer of `GET /version`. */
export function systemVersion({ experimental }: { readonly experimental: boolean }): object {
  const tools = toolVersions();
  const arch = goArchitecture();
  const kernel = release();
  return {
    Platform: { Name: 'Gantry' },
    Components: [
      {
        Name: 'Engine',
        Version: ENGINE_VERSION,
        Details: {
          ApiVersion: API_VERSION,
          Arch: arch,
          BuildTime: '',
          Experimental: String(experimental),
          GitCommit: '',
          GoVersion: '',
          KernelVersion: kernel,
          MinAPIVersion: MIN_API_VERSION,
          NodeVersion: process.version,
          Os: 'linux',
        },
      },
      { Name: 'containerd-shim-runc-v2', Version: tools.shim, Details: { GitCommit: '' } },
      { Name: 'runc', Version: tools.runc, Details: { GitCommit: tools.runcCommit } },
    ],
    Version: ENGINE_VERSION,
    ApiVersion: API_VERSION,
    MinAPIVersion: MIN_API_VERSION,
    GitCommit: '',
    GoVersion: '',
    Os: 'linux',
    Arch: arch,
    KernelVersion: kernel,
    ...(experimental ? { Experimental: true } : {}),
    BuildTime: '',
  };
}
