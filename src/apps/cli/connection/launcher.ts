/** Where the launchers of this installation are: beside the sources, or beside the release's bundle. */
import { fileURLToPath } from 'node:url';

/** The path of `bin/NAME`; undefined when this program was not installed with it. */
export function launcherPath(name: 'gantry' | 'gantryd'): string | undefined {
  const { existsSync } = process.getBuiltinModule('node:fs');
  for (const up of ['../', '../../', '../../../', '../../../../']) {
    const path = fileURLToPath(new URL(`${up}bin/${name}`, import.meta.url));
    if (existsSync(path)) return path;
  }
  return undefined;
}
