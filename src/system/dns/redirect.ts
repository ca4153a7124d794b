/**
 * Makes a resolver on some free port of 127.0.0.11 appear at port 53 inside a network namespace, which leaves
 * port 53 itself to the container. Two nftables chains of ours rewrite port numbers, last on the way in and
 * first on the way out, so every other rule, the connection tracker and a packet dump see port 53. There is no
 * address translation: the namespace needs no connection tracking for it.
 */
import { openNftables, type RuleSet } from '#system/nftables/nftables.ts';
import { GantryError } from '#types/errors.ts';

/** Where the resolver is found. */
export const LISTEN_ADDRESS = '127.0.0.11';
const TABLE = 'ip gantry_dns';
/** Behind everything on the way in: after filters (0) and source translation (100). */
const PRIORITY_LAST = 300;
/** Before everything on the way out: connection tracking stands at -200. */
const PRIORITY_FIRST = -300;

/** Rules that redirect to `port`; the table must not exist. */
export function redirection(port: number): string {
  return `create table ${TABLE}
table ${TABLE} {
  chain request {
    type filter hook input priority ${PRIORITY_LAST};
    ip daddr ${LISTEN_ADDRESS} udp dport 53 udp dport set ${port}
    ip daddr ${LISTEN_ADDRESS} tcp dport 53 tcp dport set ${port}
  }
  chain reply {
    type filter hook output priority ${PRIORITY_FIRST};
    ip saddr ${LISTEN_ADDRESS} udp sport ${port} udp sport set 53
    ip saddr ${LISTEN_ADDRESS} tcp sport ${port} tcp sport set 53
  }
}
`;
}

/** The rules of a namespace. Lives within one stretch inside it: its socket belongs there. */
export class Redirect implements Disposable {
  readonly #rules: RuleSet = openRules();

  /** Whether a redirection is there, and where its rules lead if they are whole. */
  present(): { port: number | undefined } | undefined {
    let listing: unknown;
    try {
      listing = this.#rules.list(`list table ${TABLE}`);
    } catch {
      return undefined;
    }
    return { port: listedPort(listing) };
  }

  /** Redirects to `port`, where nothing is redirected yet. */
  create(port: number): void {
    this.#rules.run(redirection(port));
  }

  /** Redirects to `port` instead of wherever to, in one step. Waits for the kernel's grace period, about 14 ms. */
  replace(port: number): void {
    this.#rules.run(`delete table ${TABLE}\n${redirection(port)}`);
  }

  [Symbol.dispose](): void {
    this.#rules[Symbol.dispose]();
  }
}

function openRules(): RuleSet {
  try {
    return openNftables();
  } catch (cause) {
    throw new GantryError(
      'unavailable',
      'libnftables.so.1 is missing, which name resolution on user-defined networks needs: install libnftables1',
      { cause },
    );
  }
}

interface Listing {
  readonly nftables?: readonly {
    readonly rule?: { readonly expr?: readonly { readonly mangle?: { readonly value?: unknown } }[] };
  }[];
}

/** The port in our four rules as nft lists them. */
export function listedPort(listing: unknown): number | undefined {
  const rules = ((listing as Listing).nftables ?? []).flatMap(({ rule }) => (rule === undefined ? [] : [rule]));
  const values = rules.flatMap(({ expr = [] }) => expr.flatMap(({ mangle }) => mangle?.value ?? []));
  const [first] = values;
  const whole = rules.length === 4 && values.length === 4 && values[1] === first;
  return whole && values[2] === 53 && values[3] === 53 && typeof first === 'number' ? first : undefined;
}
