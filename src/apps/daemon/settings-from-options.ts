/** From the daemon's options to the settings use-cases read, completed with facts about the host. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import type { ReloadableSettings, RuntimeSettings } from '#engine/settings.ts';
import type { BridgeOptions } from '#services/networks/bridge-device.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { DaemonOptions, RuntimeOption } from './options/daemon-options.ts';

const RUNC_SHIM = 'io.containerd.runc.v2';
/** Beside dockerd's docker0, so that both run on one host. */
const DEFAULT_BRIDGE = 'gantry0';

/** Settings that may change on reload. Throws `invalid` for a seccomp profile that cannot be read. */
export function reloadableSettings(options: DaemonOptions, cgroupVersion: 1 | 2): ReloadableSettings {
  const runtimes: Record<string, RuntimeSettings> = {
    [RUNC_SHIM]: { path: undefined, args: [], shim: RUNC_SHIM },
    runc: { path: undefined, args: [], shim: RUNC_SHIM },
  };
  for (const [name, runtime] of Object.entries(options.runtimes))
    runtimes[name] = runtimeSettings(options, name, runtime);
  if (!(options.defaultRuntime in runtimes)) {
    throw new GantryError('invalid', `specified default runtime '${options.defaultRuntime}' does not exist`);
  }
  return {
    experimental: options.experimental,
    debug: options.debug,
    liveRestore: options.liveRestore,
    shutdownTimeoutSeconds: options.shutdownTimeoutSeconds,
    labels: options.labels,
    runtimes,
    insecureRegistries: options.insecureRegistries,
    registryMirrors: options.registryMirrors,
    networkOptions: options.networkOptions,
    registry: {
      mirrors: options.registryMirrors,
      insecure: options.insecureRegistries,
      hosts: options.registryHosts,
      certificatesDirectory: options.registryCertificates,
      proxies: options.proxies,
    },
    // Compat: 0 means the default.
    downloads: {
      maxDownloads: options.maxConcurrentDownloads || 3,
      maxAttempts: options.maxDownloadAttempts || 5,
    },
    maxConcurrentUploads: options.maxConcurrentUploads || 5,
    defaults: {
      ulimits: Object.values(options.defaultUlimits),
      shmSizeBytes: options.defaultShmSizeBytes,
      ipcMode: options.defaultIpcMode,
      cgroupnsMode: options.defaultCgroupNamespace || (cgroupVersion === 2 ? 'private' : 'host'),
      cgroupParent: options.cgroupParent,
      init: options.init,
      initPath: options.initPath,
      defaultRuntime: options.defaultRuntime,
      logDriver: options.logDriver,
      logOptions: options.logOptions,
      noNewPrivileges: options.noNewPrivileges,
      seccompProfile: seccompProfile(options.seccompProfile),
      dns: options.dns.servers,
      dnsOptions: options.dns.options,
      dnsSearch: options.dns.search,
    },
  };
}

/** A runtime with arguments becomes a script: the runc shim takes a binary only. */
function runtimeSettings(options: DaemonOptions, name: string, runtime: RuntimeOption): RuntimeSettings {
  const shim = runtime.type === '' ? RUNC_SHIM : runtime.type;
  if (runtime.args.length === 0) return { path: runtime.path || undefined, args: [], shim };
  const directory = join(options.execRoot, 'runtimes');
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const script = join(directory, name.replaceAll('/', '_'));
  const words = [runtime.path, ...runtime.args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  writeFileSync(script, `#!/bin/sh\nexec ${words.join(' ')} "$@"\n`);
  chmodSync(script, 0o700);
  return { path: script, args: runtime.args, shim };
}

function seccompProfile(value: string): string {
  if (!isAbsolute(value) && !value.startsWith('.')) return value;
  try {
    return readFileSync(value, 'utf8');
  } catch (error) {
    throw new GantryError('invalid', `opening seccomp profile (${value}) failed: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

/** The default bridge's options. */
export function bridgeOptions(options: DaemonOptions): BridgeOptions {
  const { bridge } = options;
  return {
    name: bridge.name || DEFAULT_BRIDGE,
    ...(bridge.bip === '' ? {} : { bip: bridge.bip }),
    ...(bridge.fixedCidr === '' ? {} : { fixedCidr: bridge.fixedCidr }),
    ...(bridge.defaultGateway === '' ? {} : { defaultGateway: bridge.defaultGateway }),
    mtu: bridge.mtu,
    icc: bridge.icc,
    ipMasquerade: bridge.ipMasquerade,
    ipForward: bridge.ipForward,
    firewall: bridge.iptables,
    ...(bridge.hostAddress === '' ? {} : { defaultAddress: bridge.hostAddress }),
    userlandProxy: bridge.userlandProxy,
    respectHostFirewall: bridge.respectHostFirewall,
  };
}
