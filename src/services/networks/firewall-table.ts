/**
 * The firewall table of this daemon in the kernel. When somebody else flushes the rule set, the whole table is put
 * back from what networks and endpoints there are: at the next change, or when the watch tells of it.
 */
import type { RuleSet } from '#system/nftables/nftables.ts';
import { type TableWatch, watchTable } from '#system/nftables/watch.ts';
import { errorMessage } from '#types/errors.ts';
import {
  type BridgeRules,
  deleteTable,
  foreignForwardDrops,
  type LinkRule,
  type PortRule,
  replaceTable,
  tableName,
} from './firewall.ts';

/** Everything the table is to hold. */
export interface TableContent {
  readonly bridges: readonly BridgeRules[];
  readonly ports: readonly PortRule[];
  readonly links: readonly LinkRule[];
}

export interface FirewallTableOptions {
  readonly instance: string;
  /** Undefined with --iptables=false. */
  readonly rules: RuleSet | undefined;
  readonly content: () => TableContent;
  readonly warn: (message: string) => void;
}

/** Owner of the table. */
export class FirewallTable implements Disposable {
  readonly name: string;
  readonly #options: FirewallTableOptions;
  #watch: TableWatch | undefined;

  constructor(options: FirewallTableOptions) {
    this.#options = options;
    this.name = tableName(options.instance);
  }

  /** Puts the table as it is to be, and watches over it from now on. */
  install(): void {
    const { rules, warn } = this.#options;
    if (rules === undefined) return;
    this.#replace(rules);
    this.#watch ??= watchTable(this.name, () => this.#heal());
    for (const chain of foreignForwardDrops(rules.list('list chains'), this.name)) {
      warn(`firewall chain "${chain}" drops forwarded packets by policy: containers reach only what it accepts`);
    }
  }

  /** Runs element changes as one transaction. A table that was flushed meanwhile is put back first. */
  run(commands: string): void {
    const { rules } = this.#options;
    if (commands === '' || rules === undefined) return;
    try {
      rules.run(commands);
    } catch (error) {
      if (this.#isThere(rules)) throw error;
      this.#heal();
      rules.run(commands);
    }
  }

  remove(): void {
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
    this.#options.rules?.run(deleteTable(this.name));
  }

  #heal(): void {
    const { rules, warn } = this.#options;
    if (rules === undefined) return;
    try {
      this.#replace(rules);
      warn('the firewall rules were removed by another program; they are back');
    } catch (error) {
      warn(`the firewall rules were removed by another program and cannot be put back: ${errorMessage(error)}`);
    }
  }

  #replace(rules: RuleSet): void {
    const { bridges, ...elements } = this.#options.content();
    rules.run(replaceTable(this.name, bridges, elements));
    this.#watch?.forget();
  }

  #isThere(rules: RuleSet): boolean {
    try {
      rules.run(`list table inet ${this.name}`);
      return true;
    } catch {
      return false;
    }
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
  }
}
