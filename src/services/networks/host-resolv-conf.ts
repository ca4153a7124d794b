/** The resolver file of the host. */
import { readFileSync } from 'node:fs';
import { parseResolvConf, RESOLVED_STUB } from './resolv-conf.ts';

const RESOLV_CONF = '/etc/resolv.conf';
const RESOLVED_RESOLV_CONF = '/run/systemd/resolve/resolv.conf';

/** The host's resolver file; systemd-resolved's list of real servers where its stub is configured. */
export function hostResolvConf(): string {
  const content = readOptional(RESOLV_CONF);
  const { servers } = parseResolvConf(content);
  return servers.length === 1 && servers[0] === RESOLVED_STUB ? readOptional(RESOLVED_RESOLV_CONF) || content : content;
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
