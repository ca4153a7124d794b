/** `--security-opt` parsed (docker's texts). */
import { GantryError } from '#types/errors.ts';

export interface SecurityOptions {
  readonly noNewPrivileges: boolean;
  /** undefined: follows `--privileged`. */
  readonly writableCgroups: boolean | undefined;
  readonly appArmorProfile: string;
  /** Empty: the daemon's; `unconfined`, `builtin`, or a profile's JSON text. */
  readonly seccompProfile: string;
  readonly labels: readonly string[];
}

const TRUE = new Set(['1', 't', 'T', 'TRUE', 'true', 'True']);
const FALSE = new Set(['0', 'f', 'F', 'FALSE', 'false', 'False']);

function flag(option: string, value: string): boolean {
  if (TRUE.has(value)) return true;
  if (FALSE.has(value)) return false;
  throw new GantryError('invalid', `invalid --security-opt 2: ${JSON.stringify(option)}`);
}

/** Parses all options of a container. */
export function parseSecurityOptions(options: readonly string[], daemonNoNewPrivileges: boolean): SecurityOptions {
  let noNewPrivileges = daemonNoNewPrivileges;
  let writableCgroups: boolean | undefined;
  let appArmorProfile = '';
  let seccompProfile = '';
  const labels: string[] = [];
  for (const option of options) {
    if (option === 'no-new-privileges') noNewPrivileges = true;
    else if (option === 'writable-cgroups') writableCgroups = true;
    else if (option === 'disable') labels.push('disable');
    else {
      const separator = option.includes('=') ? '=' : ':';
      const at = option.indexOf(separator);
      if (at < 0) throw new GantryError('invalid', `invalid --security-opt 1: ${JSON.stringify(option)}`);
      const value = option.slice(at + 1);
      switch (option.slice(0, at)) {
        case 'label':
          labels.push(value);
          break;
        case 'apparmor':
          appArmorProfile = value;
          break;
        case 'seccomp':
          seccompProfile = value;
          break;
        case 'no-new-privileges':
          noNewPrivileges = flag(option, value);
          break;
        case 'writable-cgroups':
          writableCgroups = flag(option, value);
          break;
        default:
          throw new GantryError('invalid', `invalid --security-opt 2: ${JSON.stringify(option)}`);
      }
    }
  }
  return { noNewPrivileges, writableCgroups, appArmorProfile, seccompProfile, labels };
}
