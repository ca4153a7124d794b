/**
 * What a create request is completed with: the daemon's own defaults, and facts about the machine.
 * Both are plain data, so that normalising a request is a pure function.
 */
import type { CgroupSupport } from '#system/cgroup/support.ts';

export const DEFAULT_SHM_SIZE_BYTES: number = 64 * 1024 * 1024;

export interface UlimitDefault {
  readonly Name: string;
  readonly Soft: number;
  readonly Hard: number;
}

/** Values given to containers that name none (dockerd flags of the same meaning). */
export interface DaemonDefaults {
  readonly ulimits: readonly UlimitDefault[];
  readonly shmSizeBytes: number;
  readonly ipcMode: 'private' | 'shareable';
  readonly cgroupnsMode: 'private' | 'host';
  /** `--cgroup-parent`; empty for the driver's own. */
  readonly cgroupParent: string;
  readonly init: boolean;
  /** `--init-path`; empty: looked up on the host. */
  readonly initPath: string;
  readonly defaultRuntime: string;
  readonly logDriver: string;
  readonly logOptions: Readonly<Record<string, string>>;
  readonly noNewPrivileges: boolean;
  /** `--seccomp-profile`: empty or `builtin`, `unconfined`, or a profile's JSON text. */
  readonly seccompProfile: string;
  readonly dns: readonly string[];
  readonly dnsOptions: readonly string[];
  readonly dnsSearch: readonly string[];
}

/** Facts about this machine that validation depends on. */
export interface MachineInfo {
  readonly cgroup: CgroupSupport;
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
  readonly cpuCount: number;
  readonly hostName: string;
  readonly ipv4Forwarding: boolean;
  readonly cgroupNamespaces: boolean;
  /** `CAP_…` names this daemon may hand out. */
  readonly capabilities: readonly string[];
  /** Per-CPU paths to mask when they exist. */
  readonly thermalThrottlePaths: readonly string[];
  /** OS/architecture of the host, as docker writes it in warnings. */
  readonly platform: string;
}
