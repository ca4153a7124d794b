/**
 * Reads a Dockerfile and refuses what can be seen to be wrong before any step runs. The texts are those of
 * docker's two passes: the reader names the file, the instruction check names the line.
 */
import { errorMessage, GantryError } from '#types/errors.ts';
import { applyConfigInstruction } from './config-instructions.ts';
import {
  type Dockerfile,
  type DockerfileInstruction,
  parseDockerfile,
  parseError,
  parseJsonForm,
  parsePairs,
  splitWords,
} from './dockerfile.ts';

/** Flags that an instruction knows; some of them the classic builder refuses at its step. */
const FLAGS: Readonly<Record<string, readonly string[]>> = {
  from: ['platform'],
  run: ['mount', 'network', 'security', 'device'],
  copy: ['chown', 'chmod', 'from', 'link', 'parents', 'exclude'],
  add: ['chown', 'chmod', 'link', 'checksum', 'keep-git-dir', 'exclude', 'unpack'],
};
const ONE_ARGUMENT = new Set(['workdir', 'user', 'stopsignal', 'maintainer']);
/** These expand no variables, so their whole meaning can be checked. */
const CHECKED_WHOLE = new Set(['shell', 'onbuild', 'healthcheck']);
const JSON_FORMS = new Set(['run', 'cmd', 'entrypoint', 'volume', 'shell', 'copy', 'add']);

/** Reads and checks a Dockerfile; `name` is its path, for messages. */
export function readDockerfile(text: string, name: string): Dockerfile {
  const file = inFile(name, () => parseDockerfile(text));
  inFile(name, () => {
    for (const instruction of file.instructions) checkForm(instruction, file.escape);
  });
  for (const instruction of file.instructions) checkInstruction(instruction, file.escape);
  return file;
}

function inFile<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const message = errorMessage(error);
    if (message.startsWith('dockerfile parse error')) throw error;
    throw new GantryError('invalid', `failed to parse ${name}: ${message}`, { cause: error });
  }
}

/** What docker's reader refuses. */
function checkForm({ name, rest, line }: DockerfileInstruction, escape: string): void {
  if ((name === 'env' || name === 'label') && rest !== '') parsePairs(rest, { name: name.toUpperCase(), escape, line });
  if (JSON_FORMS.has(name)) parseJsonForm(rest);
}

function checkInstruction(instruction: DockerfileInstruction, escape: string): void {
  const { name, rest, line } = instruction;
  const label = name.toUpperCase();
  const known = FLAGS[name];
  for (const flag of instruction.flags) {
    const flagName = flag.split('=', 1)[0] ?? '';
    if (known !== undefined && !known.includes(flagName)) throw parseError(line, `unknown flag: --${flagName}`);
  }
  if (CHECKED_WHOLE.has(name)) {
    applyConfigInstruction(instruction, { config: {}, escape, variables: new Map(), cmdSet: false });
  } else if (ONE_ARGUMENT.has(name)) {
    if (rest === '') throw parseError(line, `${label} requires exactly one argument`);
  } else if (['env', 'label', 'arg', 'expose', 'volume'].includes(name)) {
    checkList(instruction, escape);
  } else if (name === 'copy' || name === 'add') {
    const count = (parseJsonForm(rest) ?? splitWords(rest, escape)).length;
    if (count < 2 && instruction.heredocs.length === 0) {
      const given = count === 1 ? 'one was' : 'none were';
      const text = `${label} requires at least two arguments, but only ${given} provided.`;
      throw parseError(line, `${text} Destination could not be determined`);
    }
  }
}

function checkList({ name, rest, line }: DockerfileInstruction, escape: string): void {
  const label = name.toUpperCase();
  const words = (name === 'volume' ? parseJsonForm(rest) : undefined) ?? splitWords(rest, escape);
  if (words.length === 0) throw parseError(line, `${label} requires at least one argument`);
  if (name === 'volume' && words.includes('')) throw parseError(line, 'VOLUME specified can not be an empty string');
  if (name !== 'volume' && name !== 'expose' && words.some((word) => word.startsWith('=')))
    throw parseError(line, `${label} names can not be blank`);
}
