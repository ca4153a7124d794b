/**
 * Who may do what with which repositories: a list of rules, each granting actions on repositories that match a pattern
 * to users, to groups, to every logged-in user or to everyone. Rules only add; what no rule grants is denied.
 *
 * File: {"groups": {"dev": ["alice"]}, "administrators": ["root", "@dev"], "rules": [
 *   {"repositories": "public/**", "to": ["everyone"], "actions": ["pull"]},
 *   {"repositories": "${user}/**", "to": ["users"], "actions": ["pull", "push", "delete"]}]}
 */
import { readFileSync } from 'node:fs';
import { errorMessage, GantryError } from '#types/errors.ts';
import { matchesGlob } from '#types/glob.ts';
import type { Action } from '../contract.ts';

const ACTIONS: readonly Action[] = ['pull', 'push', 'delete'];
const EVERYONE = 'everyone';
const USERS = 'users';
const MAX_RULES = 10_000;

interface Rule {
  readonly pattern: string;
  readonly to: readonly string[];
  readonly actions: readonly Action[];
}

/** A checked rights file. */
export class Rights {
  readonly #groups: ReadonlyMap<string, ReadonlySet<string>>;
  readonly #administrators: readonly string[];
  readonly #rules: readonly Rule[];

  private constructor(
    groups: ReadonlyMap<string, ReadonlySet<string>>,
    administrators: readonly string[],
    rules: readonly Rule[],
  ) {
    this.#groups = groups;
    this.#administrators = administrators;
    this.#rules = rules;
  }

  /** Without a rights file: every logged-in user may do everything, others nothing. */
  static standard(): Rights {
    return new Rights(new Map(), [USERS], []);
  }

  /** Without users: everyone may do everything. */
  static open(): Rights {
    return new Rights(new Map(), [EVERYONE], []);
  }

  /** Reads a rights file; throws `invalid` naming what is wrong. */
  static read(file: string): Rights {
    try {
      return Rights.parse(JSON.parse(readFileSync(file, 'utf8')));
    } catch (error) {
      throw new GantryError('invalid', `rights file ${file}: ${errorMessage(error)}`, { cause: error });
    }
  }

  /** Checks the parsed JSON of a rights file. */
  static parse(value: unknown): Rights {
    const fields = fieldsOf(value, 'the file', ['groups', 'administrators', 'rules']);
    const groups = new Map<string, ReadonlySet<string>>();
    for (const [name, members] of Object.entries(fieldsOf(fields['groups'] ?? {}, 'groups'))) {
      groups.set(name, new Set(textsOf(members, `groups.${name}`)));
    }
    const checkWho = (who: readonly string[], where: string): readonly string[] => {
      for (const name of who) {
        if (name.startsWith('@') && !groups.has(name.slice(1)))
          throw new GantryError('invalid', `${where}: there is no group ${JSON.stringify(name.slice(1))}`);
      }
      return who;
    };
    const rules = fields['rules'] ?? [];
    if (!Array.isArray(rules)) throw new GantryError('invalid', 'rules is not a list');
    if (rules.length > MAX_RULES) throw new GantryError('invalid', `there are more than ${MAX_RULES} rules`);
    const administrators = checkWho(textsOf(fields['administrators'] ?? [], 'administrators'), 'administrators');
    const parsed = rules.map((rule, index): Rule => {
      const where = `rules[${index}]`;
      const { repositories, to, actions } = fieldsOf(rule, where, ['repositories', 'to', 'actions']);
      if (typeof repositories !== 'string' || repositories === '')
        throw new GantryError('invalid', `${where}.repositories is not a pattern`);
      return {
        pattern: repositories,
        to: checkWho(textsOf(to, `${where}.to`), `${where}.to`),
        actions: actionsOf(actions, where),
      };
    });
    return new Rights(groups, administrators, parsed);
  }

  #includes(who: readonly string[], user: string | undefined): boolean {
    return who.some((name) => {
      if (name === EVERYONE) return true;
      if (user === undefined) return false;
      if (name === USERS) return true;
      return name.startsWith('@') ? (this.#groups.get(name.slice(1))?.has(user) ?? false) : name === user;
    });
  }

  /** Whether a user (undefined: nobody in particular) may see and do everything. */
  isAdministrator(user: string | undefined): boolean {
    return this.#includes(this.#administrators, user);
  }

  /** Whether a user may do this. */
  allows(user: string | undefined, repository: string, action: Action): boolean {
    if (this.isAdministrator(user)) return true;
    return this.#rules.some((rule) => {
      if (!rule.actions.includes(action) || !this.#includes(rule.to, user)) return false;
      if (!rule.pattern.includes('${user}')) return matchesGlob(rule.pattern, repository);
      // A name with a star in it would widen the pattern.
      return (
        user !== undefined && !user.includes('*') && matchesGlob(rule.pattern.replaceAll('${user}', user), repository)
      );
    });
  }
}

function fieldsOf(value: unknown, where: string, known?: readonly string[]): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new GantryError('invalid', `${where} is not an object`);
  const stranger = known === undefined ? undefined : Object.keys(value).find((name) => !known.includes(name));
  if (stranger !== undefined)
    throw new GantryError('invalid', `${where} has an unknown field ${JSON.stringify(stranger)}`);
  return value as Readonly<Record<string, unknown>>;
}

function textsOf(value: unknown, where: string): string[] {
  if (!Array.isArray(value) || value.some((item) => typeof item !== 'string' || item === '')) {
    throw new GantryError('invalid', `${where} is not a list of names`);
  }
  return value as string[];
}

function actionsOf(value: unknown, where: string): Action[] {
  const names = textsOf(value, `${where}.actions`);
  if (names.includes('*')) return [...ACTIONS];
  const stranger = names.find((name) => !ACTIONS.includes(name as Action));
  if (stranger !== undefined)
    throw new GantryError('invalid', `${where}.actions: ${JSON.stringify(stranger)} is none of ${ACTIONS.join(', ')}`);
  return names as Action[];
}
