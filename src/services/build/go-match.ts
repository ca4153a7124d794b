/**
 * Go's filepath.Match: `*` and `?` never cross a slash, `[…]` classes with `^`, backslash escapes.
 * A malformed pattern is docker's `syntax error in pattern`.
 *
 * Invariant: matching takes at most steps × path length and cannot backtrack, whatever the pattern; patterns come
 * from build contexts and requests, and `*a*a*a…` keeps a regular expression busy for ever.
 */
import { GantryError } from '#types/errors.ts';

/** Longest pattern compiled. */
export const PATTERN_LENGTH_LIMIT = 4096;
/** Steps × path length that is still tried: any pattern on any path the kernel takes. */
const WORK_LIMIT = 40_000_000;

const BAD_PATTERN = 'syntax error in pattern';
const SLASH = 0x2f;

type Test = (codePoint: number) => boolean;

/** One step of a pattern. */
export type GlobStep =
  /** One character. */
  | { readonly kind: 'one'; readonly test: Test }
  /** Any number of characters that pass. */
  | { readonly kind: 'many'; readonly test: Test }
  /** Nothing, or anything up to and including a slash. */
  | { readonly kind: 'directories' };

const any: Test = () => true;
const notSlash: Test = (codePoint) => codePoint !== SLASH;

/** What `**` stands for at a pattern's end. */
export const ANYTHING: GlobStep = { kind: 'many', test: any };
/** What `**` stands for elsewhere, with the slash behind it. */
export const DIRECTORIES: GlobStep = { kind: 'directories' };

function syntaxError(): GantryError {
  return new GantryError('invalid', BAD_PATTERN);
}

/** The characters of a pattern. Throws `invalid` when it is too long. */
export function patternCharacters(pattern: string): readonly string[] {
  if (pattern.length > PATTERN_LENGTH_LIMIT) throw syntaxError();
  return [...pattern];
}

/** Reads a class starting at `[`. */
function readClass(characters: readonly string[], start: number): { test: Test; next: number } {
  let index = start + 1;
  const negated = characters[index] === '^';
  if (negated) index += 1;
  const ranges: (readonly [low: number, high: number])[] = [];
  const one = (): number => {
    let character = characters[index];
    if (character === undefined || character === '-' || character === ']') throw syntaxError();
    if (character === '\\') {
      index += 1;
      character = characters[index];
      if (character === undefined) throw syntaxError();
    }
    index += 1;
    return character.codePointAt(0) ?? 0;
  };
  for (let count = 0; count === 0 || characters[index] !== ']'; count += 1) {
    const low = one();
    if (characters[index] === '-') {
      index += 1;
      ranges.push([low, one()]);
    } else ranges.push([low, low]);
  }
  const test: Test = (codePoint) => ranges.some(([low, high]) => codePoint >= low && codePoint <= high) !== negated;
  return { test, next: index + 1 };
}

/** Reads the step at an index and the index behind it. Throws `invalid` for a malformed pattern. */
export function readStep(characters: readonly string[], index: number): { step: GlobStep; next: number } {
  const character = characters[index] as string;
  if (character === '*') return { step: { kind: 'many', test: notSlash }, next: index + 1 };
  if (character === '?') return { step: { kind: 'one', test: notSlash }, next: index + 1 };
  if (character === '[') {
    const { test, next } = readClass(characters, index);
    return { step: { kind: 'one', test }, next };
  }
  const literal = character === '\\' ? characters[index + 1] : character;
  if (literal === undefined) throw syntaxError();
  const wanted = literal.codePointAt(0);
  return {
    step: { kind: 'one', test: (codePoint) => codePoint === wanted },
    next: index + (character === '\\' ? 2 : 1),
  };
}

/** The states a match can be in: how many steps are done, and which `directories` steps are within a name. */
class States {
  readonly steps: readonly GlobStep[];
  readonly done: Uint8Array;
  readonly within: Uint8Array;

  constructor(steps: readonly GlobStep[]) {
    this.steps = steps;
    this.done = new Uint8Array(steps.length + 1);
    this.within = new Uint8Array(steps.length);
  }

  /** Enters a state and all that need no character from there. */
  enter(from: number): void {
    for (let at = from; this.done[at] === 0; at += 1) {
      this.done[at] = 1;
      const kind = this.steps[at]?.kind;
      if (kind === 'directories') this.within[at] = 1;
      if (kind === undefined || kind === 'one') return;
    }
  }

  /** Fills `next` by one character; false when no state is left. */
  advance(codePoint: number, next: States): boolean {
    next.done.fill(0);
    next.within.fill(0);
    let alive = false;
    for (let at = 0; at < this.steps.length; at += 1) {
      const step = this.steps[at] as GlobStep;
      if (step.kind === 'directories') {
        if (this.within[at] === 0) continue;
        alive = true;
        next.within[at] = 1;
        if (codePoint === SLASH) next.enter(at + 1);
      } else if (this.done[at] === 1 && step.test(codePoint)) {
        alive = true;
        next.enter(step.kind === 'many' ? at : at + 1);
      }
    }
    return alive;
  }
}

/** Whether the steps match the whole path or, with `below`, a directory above it. Throws for absurdly long paths. */
export function matchSteps(steps: readonly GlobStep[], path: string, below = false): boolean {
  if ((steps.length + 1) * path.length > WORK_LIMIT) throw new GantryError('invalid', 'path is too long to be matched');
  let present = new States(steps);
  let next = new States(steps);
  present.enter(0);
  for (let index = 0; index < path.length; ) {
    const codePoint = path.codePointAt(index) as number;
    if (below && codePoint === SLASH && present.done[steps.length] === 1) return true;
    if (!present.advance(codePoint, next)) return false;
    [present, next] = [next, present];
    index += codePoint > 0xffff ? 2 : 1;
  }
  return present.done[steps.length] === 1;
}

/** Compiles to a predicate over whole names. */
export function compileGoPattern(pattern: string): (name: string) => boolean {
  const characters = patternCharacters(pattern);
  const steps: GlobStep[] = [];
  for (let index = 0; index < characters.length; ) {
    const read = readStep(characters, index);
    steps.push(read.step);
    index = read.next;
  }
  return (name) => matchSteps(steps, name);
}
