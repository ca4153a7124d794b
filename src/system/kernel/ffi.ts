/**
 * The one place that opens native libraries: `node:ffi` where this Node has it, `koffi` otherwise.
 *
 * Calls are synchronous and run on the calling thread. `errno()` belongs to that thread and must be read
 * directly after the call that failed, before anything else runs. 64-bit results are always bigints; a
 * `string` argument also takes a NUL-terminated Buffer for bytes that are not UTF-8.
 */
import { createRequire } from 'node:module';

/** Types a native function can take or return. */
export type NativeType = 'void' | 'i32' | 'u32' | 'i64' | 'u64' | 'pointer' | 'string';

/** How to call one native function. `symbol` gives the exported name when it differs from the key. */
export interface Signature {
  readonly symbol?: string;
  readonly returns: NativeType;
  readonly arguments: readonly Exclude<NativeType, 'void'>[];
}

export type Signatures = Readonly<Record<string, Signature>>;

interface ArgumentOf {
  i32: number;
  u32: number;
  i64: bigint;
  u64: bigint;
  pointer: bigint | NodeJS.ArrayBufferView | ArrayBuffer | null;
  string: string | Buffer | null;
}

interface ResultOf {
  void: undefined;
  i32: number;
  u32: number;
  i64: bigint;
  u64: bigint;
  /** 0n is a null pointer. */
  pointer: bigint;
  string: string | null;
}

/** The JavaScript function made from a signature. */
export type NativeFunction<S extends Signature> = (...values: ArgumentsOf<S['arguments']>) => ResultOf[S['returns']];

type ArgumentsOf<A extends readonly (keyof ArgumentOf)[]> = { -readonly [I in keyof A]: ArgumentOf[A[I]] };

/** An open library: its functions, and the calling thread's errno. */
export interface Library<S extends Signatures> {
  readonly calls: { readonly [K in keyof S]: NativeFunction<S[K]> };
  /** errno of the call made just before, on this thread. */
  errno(): number;
}

/** What the two FFI implementations have in common. */
export interface Foreign {
  readonly name: 'node:ffi' | 'koffi';
  /** Opens a library and binds functions; throws when the library or a symbol is missing. */
  bind(library: string, signatures: Signatures): Record<string, (...values: never[]) => unknown>;
  errno(): number;
  /** Copies `length` bytes from native memory. */
  read(pointer: bigint, length: number): Buffer;
}

type NodeFfi = typeof import('node:ffi');

/** Loads node:ffi without its ExperimentalWarning; every other warning passes. */
function loadNodeFfi(): NodeFfi | undefined {
  const emitWarning = process.emitWarning;
  process.emitWarning = ((warning: string | Error, ...rest: unknown[]) => {
    if (String(warning).startsWith('FFI is an experimental feature')) return;
    (emitWarning as (...values: unknown[]) => void).call(process, warning, ...rest);
  }) as typeof process.emitWarning;
  try {
    return process.getBuiltinModule('node:ffi') as NodeFfi | undefined;
  } catch {
    return undefined;
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** The built-in FFI, or undefined when this Node lacks it. */
export function nodeForeign(): Foreign | undefined {
  const ffi = loadNodeFfi();
  if (ffi === undefined) return undefined;
  const libc = ffi.dlopen(null, { __errno_location: { arguments: [], return: 'pointer' } });
  // errno's address is fixed for the life of a thread, and every thread loads this module for itself.
  const cell = new Int32Array(ffi.toArrayBuffer(libc.functions.__errno_location() as bigint, 4, false));
  return {
    name: 'node:ffi',
    errno: () => cell[0] ?? 0,
    read: (pointer, length) => ffi.toBuffer(pointer, length, true),
    bind(library, signatures) {
      const bound: Record<string, (...values: never[]) => unknown> = {};
      // One handle binds a symbol only once, so a second signature for it gets a handle of its own.
      const handles: { handle: InstanceType<NodeFfi['DynamicLibrary']>; symbols: Set<string> }[] = [
        { handle: new ffi.DynamicLibrary(library), symbols: new Set() },
      ];
      for (const [key, signature] of Object.entries(signatures)) {
        const symbol = signature.symbol ?? key;
        let slot = handles.find(({ symbols }) => !symbols.has(symbol));
        if (slot === undefined) {
          slot = { handle: new ffi.DynamicLibrary(library), symbols: new Set() };
          handles.push(slot);
        }
        slot.symbols.add(symbol);
        const call = slot.handle.getFunction(symbol, {
          arguments: signature.arguments,
          return: signature.returns === 'string' ? 'pointer' : signature.returns,
        }) as unknown as (...values: never[]) => unknown;
        bound[key] = signature.returns === 'string' ? (...values) => ffi.toString(call(...values) as bigint) : call;
      }
      return bound;
    },
  };
}

const KOFFI_TYPES: Readonly<Record<NativeType, string>> = {
  void: 'void',
  i32: 'int32',
  u32: 'uint32',
  i64: 'int64',
  u64: 'uint64',
  pointer: 'void *',
  string: 'const char *',
};

/** FFI through the `koffi` package. */
export function koffiForeign(): Foreign {
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  const wide = new Set<NativeType>(['i64', 'u64', 'pointer']);
  return {
    name: 'koffi',
    errno: () => koffi.errno(),
    read: (pointer, length) => Buffer.from(koffi.decode(pointer, 'uint8', length) as Uint8Array),
    bind(library, signatures) {
      const handle = koffi.load(library);
      const bound: Record<string, (...values: never[]) => unknown> = {};
      for (const [key, signature] of Object.entries(signatures)) {
        const call = handle.func(
          signature.symbol ?? key,
          KOFFI_TYPES[signature.returns],
          signature.arguments.map((type) => KOFFI_TYPES[type]),
        ) as (...values: never[]) => unknown;
        bound[key] = wide.has(signature.returns)
          ? (...values) => BigInt((call(...values) as number | bigint | null) ?? 0)
          : call;
      }
      return bound;
    },
  };
}

let chosen: Foreign | undefined;

/** The FFI in use, chosen at the first native call. */
export function foreign(): Foreign {
  chosen ??= nodeForeign() ?? koffiForeign();
  return chosen;
}

/**
 * Opens a shared library (the first of `names` that exists) and binds functions.
 * Throws with the loader's own text when none can be opened or a symbol is missing.
 */
export function openLibrary<const S extends Signatures>(
  names: string | readonly string[],
  signatures: S,
  implementation: Foreign = foreign(),
): Library<S> {
  let failure: unknown = new Error('openLibrary: no library name given');
  for (const name of typeof names === 'string' ? [names] : names) {
    try {
      return { calls: implementation.bind(name, signatures) as Library<S>['calls'], errno: implementation.errno };
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

/** Copies bytes out of native memory, e.g. behind a returned pointer. */
export function readNative(pointer: bigint, length: number): Buffer {
  return foreign().read(pointer, length);
}
