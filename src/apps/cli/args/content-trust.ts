/** Docker Content Trust (Notary 1): its signatures can be neither checked nor made here, so asking for it is refused. */
import { parseGoBool } from '../text/go-text.ts';
import type { ParsedFlags } from './parse-flags.ts';
import { ExitError } from './usage-error.ts';

/** Ends the command when signatures were asked for by flag or by DOCKER_CONTENT_TRUST. */
export function refuseContentTrust(flags: ParsedFlags): void {
  const byEnvironment = parseGoBool(process.env['DOCKER_CONTENT_TRUST'] ?? '') ?? false;
  if (flags.bool('disable-content-trust', !byEnvironment)) return;
  throw new ExitError(
    1,
    'gantry: Docker Content Trust is not supported: unset DOCKER_CONTENT_TRUST or give --disable-content-trust\n',
  );
}
