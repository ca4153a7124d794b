/**
 * nftables through libnftables: a ruleset text is one atomic transaction. The context is opened at the first
 * use (its sockets belong to the network namespace of the thread at each call). Only texts made by our own
 * plans are run; they name only our own tables.
 */
import { openLibrary } from '#system/kernel/ffi.ts';
import { GantryError } from '#types/errors.ts';

const SIGNATURES = {
  nft_ctx_new: { returns: 'pointer', arguments: ['u32'] },
  nft_ctx_free: { returns: 'void', arguments: ['pointer'] },
  nft_ctx_buffer_output: { returns: 'i32', arguments: ['pointer'] },
  nft_ctx_buffer_error: { returns: 'i32', arguments: ['pointer'] },
  nft_ctx_get_output_buffer: { returns: 'string', arguments: ['pointer'] },
  nft_ctx_get_error_buffer: { returns: 'string', arguments: ['pointer'] },
  nft_ctx_output_set_flags: { returns: 'void', arguments: ['pointer', 'u32'] },
  nft_run_cmd_from_buffer: { returns: 'i32', arguments: ['pointer', 'string'] },
} as const;

const NFT_CTX_OUTPUT_JSON = 1 << 4;

/** A rule set that can be changed by text; the fake in tests records the texts. */
export interface RuleSet extends Disposable {
  /** Runs commands as one transaction. Throws with nft's own text. */
  run(commands: string): void;
  /** Runs a `list` command; returns nft's JSON (libnftables-json(5)). */
  list(command: string): unknown;
}

/** Opens libnftables; throws `unavailable` when it is not installed. */
export function openNftables(): RuleSet {
  let opened: ReturnType<typeof open>;
  try {
    opened = open();
  } catch (cause) {
    throw new GantryError('unavailable', 'libnftables.so.1 is missing: install libnftables1, or use --iptables=false', {
      cause,
    });
  }
  const { calls } = opened;
  const context = calls.nft_ctx_new(0);
  calls.nft_ctx_buffer_output(context);
  calls.nft_ctx_buffer_error(context);
  const execute = (commands: string): string => {
    const status = calls.nft_run_cmd_from_buffer(context, commands);
    const output = calls.nft_ctx_get_output_buffer(context) ?? '';
    const problem = calls.nft_ctx_get_error_buffer(context) ?? '';
    if (status !== 0) throw new GantryError('system', `nftables: ${problem.trim() || `status ${status}`}`);
    return output;
  };
  return {
    run: (commands) => void execute(commands),
    list(command) {
      calls.nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_JSON);
      try {
        return JSON.parse(execute(command) || '{}');
      } finally {
        calls.nft_ctx_output_set_flags(context, 0);
      }
    },
    [Symbol.dispose]: () => calls.nft_ctx_free(context),
  };
}

let library: ReturnType<typeof openLibrary<typeof SIGNATURES>> | undefined;

/** Bound once: binding costs more than a whole transaction. */
function open(): ReturnType<typeof openLibrary<typeof SIGNATURES>> {
  library ??= openLibrary('libnftables.so.1', SIGNATURES);
  return library;
}
