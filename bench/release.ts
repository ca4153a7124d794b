/** A release made from the present sources, so that what is measured is what users run and never stale. */
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { bundle } from '../dev-tools/bundle.ts';

const ROOT: string = resolve(import.meta.dirname, '..');

/** A release's directory; disposing removes it. */
export interface Release extends Disposable {
  readonly directory: string;
}

/** Bundles into a temporary directory with launchers beside the bundle, as a release has them. */
export async function makeRelease(): Promise<Release> {
  const directory = mkdtempSync(join(tmpdir(), 'gantry-release-'));
  await bundle(directory);
  cpSync(join(ROOT, 'bin'), join(directory, 'bin'), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
  return { directory, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
}
