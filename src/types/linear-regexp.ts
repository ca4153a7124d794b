/**
 * Regular expressions of users (list filters, `labels-regex`, ignore patterns), with RE2's syntax as Docker takes it.
 *
 * Invariant: matching takes at most program length × text length steps and cannot backtrack, so that no pattern
 * stops the daemon. JavaScript's own engine needs exponential time for patterns like `(a+)+$`.
 */
import { GantryError } from './errors.ts';

/** Steps a compiled pattern may have (`x{1000}` needs 1000). */
const PROGRAM_LIMIT = 8192;
/** Groups within groups. */
const DEPTH_LIMIT = 200;
/** Largest count in `{n,m}`, as in RE2. */
const REPEAT_LIMIT = 1000;
/** Program length × text length that is still tried; beyond, nothing matches. */
const STEP_LIMIT = 20_000_000;

const MAX_CODE_POINT = 0x10ffff;

type Ranges = readonly (readonly [low: number, high: number])[];
type Test = (codePoint: number) => boolean;
type Assertion = 'textStart' | 'textEnd' | 'lineStart' | 'lineEnd' | 'boundary' | 'noBoundary';

type Tree =
  | { readonly kind: 'empty' }
  | { readonly kind: 'one'; readonly test: Test }
  | { readonly kind: 'assert'; readonly what: Assertion }
  | { readonly kind: 'all' | 'any'; readonly parts: readonly Tree[] }
  | { readonly kind: 'repeat'; readonly part: Tree; readonly least: number; readonly most: number };

type Step =
  | { readonly kind: 'one'; readonly test: Test }
  | { readonly kind: 'assert'; readonly what: Assertion }
  | { kind: 'fork'; first: number; second: number };

const DIGIT: Ranges = [[48, 57]];
const SPACE: Ranges = [
  [9, 10],
  [12, 13],
  [32, 32],
];
const WORD: Ranges = [
  [48, 57],
  [65, 90],
  [95, 95],
  [97, 122],
];
const ESCAPED_CLASSES: Readonly<Record<string, Ranges>> = { d: DIGIT, s: SPACE, w: WORD };
const POSIX: Readonly<Record<string, Ranges>> = {
  alnum: [
    [48, 57],
    [65, 90],
    [97, 122],
  ],
  alpha: [
    [65, 90],
    [97, 122],
  ],
  ascii: [[0, 127]],
  blank: [
    [9, 9],
    [32, 32],
  ],
  cntrl: [
    [0, 31],
    [127, 127],
  ],
  digit: DIGIT,
  graph: [[33, 126]],
  lower: [[97, 122]],
  print: [[32, 126]],
  punct: [
    [33, 47],
    [58, 64],
    [91, 96],
    [123, 126],
  ],
  space: [
    [9, 13],
    [32, 32],
  ],
  upper: [[65, 90]],
  word: WORD,
  xdigit: [
    [48, 57],
    [65, 70],
    [97, 102],
  ],
};
const CONTROL: Readonly<Record<string, number>> = { a: 7, f: 12, n: 10, r: 13, t: 9, v: 11 };

function within(ranges: Ranges): Test {
  return (codePoint) => ranges.some(([low, high]) => codePoint >= low && codePoint <= high);
}

function not(test: Test): Test {
  return (codePoint) => !test(codePoint);
}

/** Tries both cases. */
function folded(test: Test): Test {
  return (codePoint) => {
    if (test(codePoint)) return true;
    const text = String.fromCodePoint(codePoint);
    return test(text.toLowerCase().codePointAt(0) ?? 0) || test(text.toUpperCase().codePointAt(0) ?? 0);
  };
}

interface Flags {
  readonly i: boolean;
  readonly m: boolean;
  readonly s: boolean;
}

class Parser {
  readonly #pattern: string;
  readonly #characters: readonly string[];
  #at = 0;
  #flags: Flags = { i: false, m: false, s: false };

  constructor(pattern: string) {
    this.#pattern = pattern;
    this.#characters = [...pattern];
  }

  parse(): Tree {
    const tree = this.#alternatives(0);
    if (this.#at < this.#characters.length) throw this.#problem('unexpected )');
    return tree;
  }

  #problem(what: string): GantryError {
    return new GantryError('invalid', `error parsing regexp: ${what}: \`${this.#pattern}\``);
  }

  #take(text: string): boolean {
    const wanted = [...text];
    if (!wanted.every((character, index) => this.#characters[this.#at + index] === character)) return false;
    this.#at += wanted.length;
    return true;
  }

  #next(): string {
    const character = this.#characters[this.#at];
    if (character === undefined) throw this.#problem('trailing backslash at end of expression');
    this.#at += 1;
    return character;
  }

  #alternatives(depth: number): Tree {
    if (depth > DEPTH_LIMIT) throw this.#problem('expression nests too deeply');
    const before = this.#flags;
    const parts = [this.#sequence(depth)];
    while (this.#take('|')) parts.push(this.#sequence(depth));
    this.#flags = before;
    return parts.length === 1 ? (parts[0] as Tree) : { kind: 'any', parts };
  }

  #sequence(depth: number): Tree {
    const parts: Tree[] = [];
    for (;;) {
      const character = this.#characters[this.#at];
      if (character === undefined || character === '|' || character === ')') return { kind: 'all', parts };
      if (this.#take('\\Q')) {
        while (this.#at < this.#characters.length && !this.#take('\\E')) parts.push(this.#literal(this.#next()));
        continue;
      }
      const part = this.#atom(depth);
      parts.push(part === undefined ? { kind: 'empty' } : this.#repeated(part));
    }
  }

  #repeated(atom: Tree): Tree {
    let part = atom;
    for (let count = 0; ; count += 1) {
      const range = this.#repetition();
      if (range === undefined) return part;
      if (count > 0) throw this.#problem('invalid nested repetition operator');
      this.#take('?');
      part = { kind: 'repeat', part, least: range[0], most: range[1] };
    }
  }

  #repetition(): readonly [number, number] | undefined {
    if (this.#take('*')) return [0, Infinity];
    if (this.#take('+')) return [1, Infinity];
    if (this.#take('?')) return [0, 1];
    if (this.#characters[this.#at] !== '{') return undefined;
    const match = /^\{(\d{1,9})(,(\d{0,9}))?\}/.exec(this.#characters.slice(this.#at, this.#at + 24).join(''));
    if (match === null) return undefined;
    this.#at += match[0].length;
    const least = Number(match[1]);
    const most = match[2] === undefined ? least : match[3] === '' ? Infinity : Number(match[3]);
    if (least > REPEAT_LIMIT || (most !== Infinity && most > REPEAT_LIMIT) || most < least) {
      throw this.#problem('invalid repeat count');
    }
    return [least, most];
  }

  /** One element; undefined for a flag group, which matches nothing itself. */
  #atom(depth: number): Tree | undefined {
    const character = this.#next();
    switch (character) {
      case '(':
        return this.#group(depth);
      case '[':
        return { kind: 'one', test: this.#class() };
      case '.':
        return { kind: 'one', test: this.#flags.s ? () => true : (codePoint) => codePoint !== 10 };
      case '^':
        return { kind: 'assert', what: this.#flags.m ? 'lineStart' : 'textStart' };
      case '$':
        return { kind: 'assert', what: this.#flags.m ? 'lineEnd' : 'textEnd' };
      case '*':
      case '+':
      case '?':
        throw this.#problem('missing argument to repetition operator');
      case '\\':
        return this.#escape();
      default:
        return this.#literal(character);
    }
  }

  #literal(character: string): Tree {
    const wanted = character.codePointAt(0) ?? 0;
    const test: Test = (codePoint) => codePoint === wanted;
    return { kind: 'one', test: this.#flags.i ? folded(test) : test };
  }

  #group(depth: number): Tree | undefined {
    const before = this.#flags;
    if (this.#take('?')) {
      if (this.#take('P<') || this.#take('<')) this.#groupName();
      else if (this.#groupFlags()) return undefined;
    }
    const tree = this.#alternatives(depth + 1);
    if (!this.#take(')')) throw this.#problem('missing closing )');
    this.#flags = before;
    return tree;
  }

  #groupName(): void {
    let name = '';
    while (!this.#take('>')) {
      if (this.#at >= this.#characters.length) throw this.#problem('invalid named capture');
      name += this.#next();
    }
    if (!/^\w+$/.test(name)) throw this.#problem('invalid named capture');
  }

  /** Reads `flags)` or `flags:`; true when the group ends there. */
  #groupFlags(): boolean {
    let on = true;
    let flags = this.#flags;
    for (;;) {
      const character = this.#characters[this.#at];
      this.#at += 1;
      if (character === '-' && on) on = false;
      else if (character === 'i' || character === 'm' || character === 's') flags = { ...flags, [character]: on };
      else if (character === ':' || character === ')') {
        this.#flags = flags;
        return character === ')';
      } else if (character !== 'U') throw this.#problem('invalid or unsupported Perl syntax');
    }
  }

  #escape(): Tree {
    const character = this.#next();
    if (character === 'A') return { kind: 'assert', what: 'textStart' };
    if (character === 'z') return { kind: 'assert', what: 'textEnd' };
    if (character === 'b') return { kind: 'assert', what: 'boundary' };
    if (character === 'B') return { kind: 'assert', what: 'noBoundary' };
    const test = this.#escapedClass(character);
    if (test !== undefined) return { kind: 'one', test };
    return this.#literal(String.fromCodePoint(this.#escapedCharacter(character)));
  }

  #escapedClass(character: string): Test | undefined {
    const lower = character.toLowerCase();
    const ranges = ESCAPED_CLASSES[lower];
    if (ranges !== undefined) return lower === character ? within(ranges) : not(within(ranges));
    if (lower !== 'p') return undefined;
    const match = /^(?:\{\^?\w{1,32}\}|[A-Z])/.exec(this.#characters.slice(this.#at, this.#at + 36).join(''));
    const name = match?.[0].replace(/[{}^]/g, '') ?? '';
    this.#at += match?.[0].length ?? 0;
    const inverted = (match?.[0].includes('^') ?? false) !== (character === 'P');
    try {
      // One code point at a time: nothing to backtrack.
      const property = new RegExp(`^\\p{${/^[A-Z][a-z]?$/.test(name) ? name : `Script=${name}`}}$`, 'u');
      const test: Test = (codePoint) => property.test(String.fromCodePoint(codePoint));
      return inverted ? not(test) : test;
    } catch {
      throw this.#problem('invalid character class range');
    }
  }

  #escapedCharacter(character: string): number {
    const control = CONTROL[character];
    if (control !== undefined) return control;
    const ahead = this.#characters.slice(this.#at, this.#at + 10).join('');
    const digits = character === 'x' ? /^(?:\{([0-9a-fA-F]{1,8})\}|([0-9a-fA-F]{2}))/.exec(ahead) : null;
    if (digits !== null) {
      this.#at += digits[0].length;
      const value = Number.parseInt(digits[1] ?? digits[2] ?? '', 16);
      if (value <= MAX_CODE_POINT) return value;
    } else if (!/^[0-9A-Za-z]$/.test(character)) return character.codePointAt(0) ?? 0;
    else if (character === '0') return 0;
    throw this.#problem('invalid escape sequence');
  }

  #class(): Test {
    const inverted = this.#take('^');
    const tests: Test[] = [];
    const ranges: [number, number][] = [];
    for (let first = true; first || !this.#take(']'); first = false) {
      if (this.#at >= this.#characters.length) throw this.#problem('missing closing ]');
      const posix = /^\[:(\^?)(\w+):\]/.exec(this.#characters.slice(this.#at, this.#at + 16).join(''));
      const named = POSIX[posix?.[2] ?? ''];
      if (posix !== null) {
        if (named === undefined) throw this.#problem('invalid character class range');
        this.#at += posix[0].length;
        tests.push(posix[1] === '^' ? not(within(named)) : within(named));
        continue;
      }
      const low = this.#classMember();
      if (typeof low === 'function') {
        tests.push(low);
        continue;
      }
      const isRange = this.#characters[this.#at] === '-' && (this.#characters[this.#at + 1] ?? ']') !== ']';
      if (isRange) this.#at += 1;
      const high = isRange ? this.#classMember() : low;
      if (typeof high === 'function' || high < low) throw this.#problem('invalid character class range');
      ranges.push([low, high]);
    }
    const every = [within(ranges), ...tests];
    const any: Test = (codePoint) => every.some((test) => test(codePoint));
    const test = this.#flags.i ? folded(any) : any;
    return inverted ? not(test) : test;
  }

  #classMember(): number | Test {
    const character = this.#next();
    if (character !== '\\') return character.codePointAt(0) ?? 0;
    const escaped = this.#next();
    return this.#escapedClass(escaped) ?? this.#escapedCharacter(escaped);
  }
}

class Compiler {
  readonly steps: Step[] = [];

  #push(step: Step): number {
    if (this.steps.length >= PROGRAM_LIMIT)
      throw new GantryError('invalid', 'error parsing regexp: expression too large');
    return this.steps.push(step) - 1;
  }

  /** Adds the steps of a tree; each falls through to what comes next. */
  add(tree: Tree): void {
    switch (tree.kind) {
      case 'empty':
        return;
      case 'one':
      case 'assert':
        this.#push(tree);
        return;
      case 'all':
        for (const part of tree.parts) this.add(part);
        return;
      case 'any':
        this.#addAny(tree.parts);
        return;
      default:
        for (let count = 0; count < tree.least; count += 1) this.#addCounted(tree.part);
        if (tree.most === Infinity) this.#addLoop(tree.part);
        else this.#addOptional(tree.part, tree.most - tree.least);
    }
  }

  /** A part that adds no step would be repeated for nothing. */
  #addCounted(part: Tree): void {
    const before = this.steps.length;
    this.add(part);
    if (this.steps.length === before) this.#push({ kind: 'fork', first: before + 1, second: before + 1 });
  }

  #addLoop(part: Tree): void {
    const at = this.#push({ kind: 'fork', first: 0, second: 0 });
    this.add(part);
    this.#push({ kind: 'fork', first: at, second: at });
    Object.assign(this.steps[at] as Step, { first: at + 1, second: this.steps.length });
  }

  #addOptional(part: Tree, count: number): void {
    const forks: number[] = [];
    for (let index = 0; index < count; index += 1) {
      forks.push(this.#push({ kind: 'fork', first: 0, second: 0 }));
      this.add(part);
    }
    for (const at of forks) Object.assign(this.steps[at] as Step, { first: at + 1, second: this.steps.length });
  }

  #addAny(parts: readonly Tree[]): void {
    const ends: number[] = [];
    for (const part of parts.slice(0, -1)) {
      const at = this.#push({ kind: 'fork', first: 0, second: 0 });
      this.add(part);
      ends.push(this.#push({ kind: 'fork', first: 0, second: 0 }));
      Object.assign(this.steps[at] as Step, { first: at + 1, second: this.steps.length });
    }
    this.add(parts.at(-1) as Tree);
    for (const end of ends)
      Object.assign(this.steps[end] as Step, { first: this.steps.length, second: this.steps.length });
  }
}

const isWord: Test = within(WORD);

function holds(what: Assertion, before: number | undefined, after: number | undefined): boolean {
  switch (what) {
    case 'textStart':
      return before === undefined;
    case 'textEnd':
      return after === undefined;
    case 'lineStart':
      return before === undefined || before === 10;
    case 'lineEnd':
      return after === undefined || after === 10;
    default: {
      const differ = (before !== undefined && isWord(before)) !== (after !== undefined && isWord(after));
      return differ === (what === 'boundary');
    }
  }
}

/** A compiled pattern. */
export class LinearRegExp {
  readonly #steps: readonly Step[];

  /** Throws `invalid` with Go's kind of text for what RE2 does not take: back references and look-around among it. */
  constructor(pattern: string) {
    const compiler = new Compiler();
    compiler.add(new Parser(pattern).parse());
    this.#steps = compiler.steps;
  }

  /** Whether the pattern matches anywhere in the text. */
  test(text: string): boolean {
    const steps = this.#steps;
    if (text.length * steps.length > STEP_LIMIT) return false;
    const points = Array.from(text, (character) => character.codePointAt(0) ?? 0);
    const seen = new Int32Array(steps.length + 1).fill(-1);
    let present: number[] = [];
    for (let at = 0; ; at += 1) {
      const next: number[] = [];
      const waiting = [0, ...present.reverse()];
      // Every step is looked at once for each position: `seen` remembers the last one.
      for (let step = waiting.pop(); step !== undefined; step = waiting.pop()) {
        if (seen[step] === at) continue;
        seen[step] = at;
        const current = steps[step];
        if (current === undefined) return true;
        if (current.kind === 'fork') waiting.push(current.second, current.first);
        else if (current.kind === 'assert') {
          if (holds(current.what, points[at - 1], points[at])) waiting.push(step + 1);
        } else if (at < points.length && current.test(points[at] as number)) next.push(step + 1);
      }
      if (at >= points.length) return false;
      present = next;
    }
  }
}
