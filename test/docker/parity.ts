/**
 * Runs the same command line through `docker` and `gantry` and compares stdout, stderr and exit code byte for byte,
 * after replacing what differs by nature: the program's name, IDs, times, ages.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { run } from '../harness/processes.ts';

const GANTRY = join(import.meta.dirname, '../../bin/gantry');
/** The texts are those of this version of docker's client; older ones say it differently. */
const DOCKER_VERSION = 28;
/** How many command lines run at once when their order does not matter. */
const PARALLEL = 4;

/** One command line. `{}` in it becomes a letter of the program, so that both work on objects of their own. */
export interface Invocation {
  readonly line: string;
  readonly input?: string;
}

/** What a program did. */
interface Outcome {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

/** The environment of both programs. */
export interface ParityContext {
  readonly environment: (program: 'docker' | 'gantry') => Record<string, string>;
  readonly cwd: string;
}

/** Why the comparison cannot be made here; undefined when it can. */
export async function parityObstacle(): Promise<string | undefined> {
  const { stdout } = await run('docker', ['--version']);
  const version = /version (\d+)/.exec(stdout)?.[1] ?? '0';
  return Number(version) === DOCKER_VERSION
    ? undefined
    : `needs a docker client of version ${DOCKER_VERSION}; this is ${stdout.trim()}`;
}

/** The API version docker's client speaks, for both to ask for the same answers. */
export async function dockerApiVersion(): Promise<string> {
  return (await run('docker', ['version', '-f', '{{.Client.DefaultAPIVersion}}'])).stdout.trim();
}

/** Splits a line at spaces; quotes keep them, `\t` is a tab. */
function words(line: string): string[] {
  const found = line.match(/(?:[^\s"']|"[^"]*"|'[^']*')+/g) ?? [];
  return found.map((word) => word.replace(/"([^"]*)"|'([^']*)'/g, (_, double, single) => double ?? single));
}

const AGE = /\d+ (?:seconds?|minutes?)(?: ago)?|Less than a second(?: ago)?|About a minute(?: ago)?/g;
const TIME = /\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?/g;

function normalise(text: string, letter: string): string {
  return (
    text
      .replaceAll(letter, '{}')
      .replaceAll(letter.toUpperCase(), '{}')
      .replace(/\bgantry\b/g, 'docker')
      // A slip in docker 28's texts.
      .replace(/^SRun /gm, 'Run ')
      .replace(/^DEPRECATED: The legacy builder[\s\S]*?\n\n/, '')
      .replace(/[0-9a-f]{64}/g, '<id>')
      .replace(/\b[0-9a-f]{12}\b/g, '<id>')
      .replace(TIME, '<time>')
      .replace(AGE, '<age>')
      // Columns are as wide as what was replaced.
      .replace(/(<id>|<age>|CREATED|STATUS|NAMES|UP) +/g, '$1 ')
  );
}

const LETTERS = { docker: 'qdq', gantry: 'qgq' } as const;

async function outcome(program: 'docker' | 'gantry', invocation: Invocation, context: ParityContext): Promise<Outcome> {
  const letter = LETTERS[program];
  const args = words(invocation.line.replaceAll('{}', letter));
  const result = await run(program === 'docker' ? 'docker' : GANTRY, args, {
    input: invocation.input ?? '',
    env: context.environment(program),
    cwd: context.cwd,
  });
  return { stdout: normalise(result.stdout, letter), stderr: normalise(result.stderr, letter), code: result.code };
}

async function compare(invocation: Invocation, context: ParityContext): Promise<string | undefined> {
  const docker = await outcome('docker', invocation, context);
  const gantry = await outcome('gantry', invocation, context);
  try {
    assert.deepEqual(gantry, docker);
    return undefined;
  } catch (error) {
    return `${invocation.line}\n${(error as Error).message}`;
  }
}

/** Lines of a table: `command line`, or `command line <<< input`, where `\n` in the input ends a line. */
export function invocations(table: string): Invocation[] {
  return table
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((line) => {
      const [command = '', input] = line.split(' <<< ');
      return { line: command, ...(input === undefined ? {} : { input: input.replaceAll('\\n', '\n') }) };
    });
}

/** Compares every line of a table, in its order, and tells every difference. */
export async function compareInOrder(table: string, context: ParityContext): Promise<void> {
  const differences: string[] = [];
  for (const invocation of invocations(table)) {
    const difference = await compare(invocation, context);
    if (difference !== undefined) differences.push(difference);
  }
  if (differences.length > 0) assert.fail(`${differences.length} differ\n\n${differences.join('\n\n')}`);
}

/** Compares every line of a table; the order does not matter. */
export async function compareAll(table: string, context: ParityContext): Promise<void> {
  const pending = invocations(table);
  const differences: string[] = [];
  const worker = async (): Promise<void> => {
    for (let invocation = pending.shift(); invocation !== undefined; invocation = pending.shift()) {
      const difference = await compare(invocation, context);
      if (difference !== undefined) differences.push(difference);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  if (differences.length > 0) assert.fail(`${differences.length} differ\n\n${differences.join('\n\n')}`);
}

/** What a help text offers: usage lines, aliases, flags with their types, commands. Its sentences are our own. */
export function offered(help: string): string[] {
  const found: string[] = [];
  let section = '';
  for (const line of help.split('\n')) {
    const title = /^(Usage|Aliases|Options|Global Options|(?:\w+ )?Commands):/.exec(line)?.[1];
    if (title !== undefined) section = title.replace(/^.* /, '');
    if (section === 'Usage' && line !== '') {
      if (line.startsWith('Usage:')) found.push(line.trim());
      else section = '';
    }
    if (section === 'Aliases' && line.startsWith('  ')) found.push(line.trim());
    if (section === 'Options') {
      const flag = /^ +(-\w, )?--[\w-]+(?: [\w-]+(?= {2}|$))?/.exec(line);
      if (flag !== null) found.push(flag[0].trim());
    }
    if (section === 'Commands') {
      const command = /^ {2}([a-z][\w-]*)\*? /.exec(line)?.[1];
      if (command !== undefined) found.push(`command ${command}`);
    }
  }
  return found.map((text) => text.replace(/\bgantry\b/g, 'docker'));
}

/** Both programs' `--help` of a command. */
export async function helpOf(command: string, context: ParityContext): Promise<{ docker: string[]; gantry: string[] }> {
  const args = [...words(command), '--help'];
  const [docker, gantry] = await Promise.all([
    run('docker', args, { env: context.environment('docker') }),
    run(GANTRY, args, { env: context.environment('gantry') }),
  ]);
  return { docker: offered(docker.stdout), gantry: offered(gantry.stdout) };
}
