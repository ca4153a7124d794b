/** The stages of a Dockerfile: each FROM with its instructions, and those that `--target` asks for. */
import { type Dockerfile, type DockerfileInstruction, parseError } from '#services/build/dockerfile.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { parsePlatform } from '#types/platform.ts';

/** One FROM and what follows it. */
export interface Stage {
  readonly from: DockerfileInstruction;
  readonly name: string;
  readonly instructions: DockerfileInstruction[];
}

/** Sorts instructions under their FROM; what stands before the first one must be ARG. */
export function splitStages(file: Dockerfile): { globals: DockerfileInstruction[]; stages: Stage[] } {
  const globals: DockerfileInstruction[] = [];
  const stages: Stage[] = [];
  for (const instruction of file.instructions) {
    if (instruction.name === 'from') {
      const words = instruction.rest.split(/\s+/).filter((word) => word !== '');
      if (words.length !== 1 && !(words.length === 3 && words[1]?.toLowerCase() === 'as')) {
        throw parseError(instruction.line, 'FROM requires either one or three arguments');
      }
      const name = (words[2] ?? '').toLowerCase();
      if (words.length === 3 && !/^[a-z][a-z0-9-_.]*$/.test(name)) {
        throw parseError(
          instruction.line,
          `invalid name for build stage: "${words[2]}", name can't start with a number or contain symbols`,
        );
      }
      if (name !== '' && stages.some((stage) => stage.name === name))
        throw new GantryError('invalid', `${name} stage name already used`);
      stages.push({ from: instruction, name, instructions: [] });
    } else if (stages.length > 0) stages.at(-1)?.instructions.push(instruction);
    else if (instruction.name === 'arg') globals.push(instruction);
    else throw parseError(instruction.line, 'no build stage in current context');
  }
  if (stages.length === 0) throw new GantryError('invalid', 'no build stage in current context');
  return { globals, stages };
}

/** The stages up to the named one. Compat: the classic builder takes no stage number here. */
export function stagesUpTo(stages: Stage[], target: string): Stage[] {
  if (target === '') return stages;
  const index = stages.findIndex((stage) => stage.name === target.toLowerCase());
  if (index < 0) throw new GantryError('invalid', `target stage "${target}" could not be found`);
  return stages.slice(0, index + 1);
}

/** Refuses what FROM's `--platform` cannot be. */
export function checkPlatform(text: string): void {
  try {
    if (text !== '') parsePlatform(text);
  } catch (error) {
    throw new GantryError('invalid', `failed to parse platform ${text}: ${errorMessage(error)}`, { cause: error });
  }
}
