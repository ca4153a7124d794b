/** `--change` of commit and import: a few Dockerfile instructions applied to a config. */
import { applyConfigInstruction, environmentOf } from '#services/build/config-instructions.ts';
import { parseDockerfile } from '#services/build/dockerfile.ts';
import type { ImageRunConfig } from '#services/images/contract.ts';
import { GantryError } from '#types/errors.ts';

const ALLOWED = new Set([
  'cmd',
  'entrypoint',
  'healthcheck',
  'env',
  'expose',
  'label',
  'onbuild',
  'stopsignal',
  'user',
  'volume',
  'workdir',
]);

/** Applies changes in order; throws docker's texts. */
export function applyChanges(config: ImageRunConfig, changes: readonly string[]): ImageRunConfig {
  if (changes.length === 0) return config;
  const file = parseDockerfile(changes.join('\n'));
  for (const instruction of file.instructions) {
    if (!ALLOWED.has(instruction.name))
      throw new GantryError('invalid', `${instruction.writtenName} is not a valid change command`);
  }
  let current = config;
  let cmdSet = false;
  for (const instruction of file.instructions) {
    const change = applyConfigInstruction(instruction, {
      config: current,
      escape: file.escape,
      variables: environmentOf(current.Env),
      cmdSet,
    });
    current = change.config;
    cmdSet ||= change.setsCmd === true;
  }
  return current;
}
