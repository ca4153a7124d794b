/** `--change` of commit and import: a few Dockerfile instructions applied to a config. */
import { applyConfigInstruction, environmentOf } from '#services/build/config-instructions.ts';
import { type Dockerfile, parseDockerfile } from '#services/build/dockerfile.ts';
import type { ImageRunConfig } from '#services/images/contract.ts';
import { errorMessage, GantryError } from '#types/errors.ts';

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
  try {
    return applyAll(config, parseDockerfile(changes.join('\n')));
  } catch (error) {
    throw asChangeError(error);
  }
}

function applyAll(config: ImageRunConfig, file: Dockerfile): ImageRunConfig {
  for (const instruction of file.instructions) {
    if (!ALLOWED.has(instruction.name)) throw notAChange(instruction.writtenName);
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

function notAChange(name: string): GantryError {
  return new GantryError('invalid', `${name} is not a valid change command`);
}

/** Changes are no file: the parser's line numbers mean nothing to who gave them. */
function asChangeError(error: unknown): unknown {
  const reason = /^dockerfile parse error on line \d+: (.*)$/s.exec(errorMessage(error))?.[1];
  if (reason === undefined) return error;
  const unknown = /^unknown instruction: (\S+)/.exec(reason)?.[1];
  return unknown === undefined ? new GantryError('invalid', reason, { cause: error }) : notAChange(unknown);
}
