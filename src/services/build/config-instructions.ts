/**
 * Instructions that only change an image's config, shared by build, commit and import. Pure: a config and an
 * instruction give the next config and the comment docker writes into the history.
 */
import type { ImageRunConfig } from '#services/images/contract.ts';
import { GantryError } from '#types/errors.ts';
import { parseSignal } from '#types/signal.ts';
import { goDurationNs } from '#types/timestamp.ts';
import {
  type DockerfileInstruction,
  parseError,
  parseJsonForm,
  parsePairs,
  readInstruction,
  splitWords,
} from './dockerfile.ts';
import { expandWord, expandWords, type Variables } from './expand.ts';

export interface ConfigChange {
  readonly config: ImageRunConfig;
  /** What history shows after `#(nop) `. */
  readonly comment: string;
  readonly setsCmd?: boolean;
  readonly maintainer?: string;
}

export interface ChangeContext {
  readonly config: ImageRunConfig;
  readonly escape: string;
  readonly variables: Variables;
  /** CMD was given in this stage, so ENTRYPOINT keeps it. */
  readonly cmdSet: boolean;
}

/** Variables of an environment list. */
export function environmentOf(env: readonly string[] | null | undefined): Map<string, string> {
  return new Map(
    (env ?? []).map((pair) => [
      pair.split('=', 1)[0] ?? '',
      pair.includes('=') ? pair.slice(pair.indexOf('=') + 1) : '',
    ]),
  );
}

/** Sets one variable in place of an older value. */
export function setEnv(env: readonly string[] | null | undefined, name: string, value: string): string[] {
  const pair = `${name}=${value}`;
  const list = [...(env ?? [])];
  const index = list.findIndex((known) => known.split('=', 1)[0] === name);
  if (index < 0) list.push(pair);
  else list[index] = pair;
  return list;
}

/** Go's %q of a string list. */
export function quoteList(list: readonly string[]): string {
  return `[${list.map((text) => JSON.stringify(text)).join(' ')}]`;
}

/** The shell that shell-form commands run in. */
export function shellOf(config: ImageRunConfig): readonly string[] {
  return config.Shell && config.Shell.length > 0 ? config.Shell : ['/bin/sh', '-c'];
}

/** A command in exec form as is, in shell form behind the shell. */
export function commandOf(rest: string, config: ImageRunConfig): string[] {
  const exec = parseJsonForm(rest);
  if (exec !== undefined) return exec;
  return [...shellOf(config), ...(rest === '' ? [] : [rest])];
}

/** Joins a WORKDIR to the current one and cleans it. */
export function joinWorkdir(current: string, path: string): string {
  const full = path.startsWith('/') ? path : `${current === '' ? '/' : current}/${path}`;
  const parts: string[] = [];
  for (const part of full.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') parts.pop();
    else parts.push(part);
  }
  return `/${parts.join('/')}`;
}

type Change = (instruction: DockerfileInstruction, context: ChangeContext) => ConfigChange;

function exactlyOne(instruction: DockerfileInstruction): void {
  if (instruction.rest === '')
    throw parseError(instruction.line, `${instruction.name.toUpperCase()} requires exactly one argument`);
}

function pairsOf(instruction: DockerfileInstruction, context: ChangeContext): [string, string][] {
  const { escape, variables } = context;
  const pairs = parsePairs(instruction.rest, { name: instruction.name.toUpperCase(), escape, line: instruction.line });
  return pairs.map(([key, value]) => {
    const name = expandWord(key, escape, variables);
    if (name === '') throw parseError(instruction.line, `${instruction.name.toUpperCase()} names can not be blank`);
    return [name, expandWord(value, escape, variables)];
  });
}

const EXPOSED = /^(?:(?:[^:]*:)*)(\d+)(?:-(\d+))?(?:\/([A-Za-z]*))?$/;

function exposedPorts(words: readonly string[]): Record<string, object> {
  const ports: Record<string, object> = {};
  for (const word of words) {
    const match = EXPOSED.exec(word);
    if (match === null) throw new GantryError('invalid', `Invalid containerPort: ${word}`);
    const protocol = (match[3] || 'tcp').toLowerCase();
    if (!['tcp', 'udp', 'sctp'].includes(protocol)) throw new GantryError('invalid', `Invalid proto: ${protocol}`);
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (first > last || last > 65_535) throw new GantryError('invalid', `Invalid containerPort: ${word}`);
    for (let port = first; port <= last; port += 1) ports[`${port}/${protocol}`] = {};
  }
  return ports;
}

function durationNs(text: string, flag: string, line: number): number {
  const total = goDurationNs(text);
  if (Number.isNaN(total) || total < 0) throw parseError(line, `time: invalid duration "${text}"`);
  if (total > 0 && total < 1e6) throw parseError(line, `Interval "${flag}" cannot be less than 1ms`);
  return total;
}

const HEALTH_FLAGS: Readonly<Record<string, string>> = {
  interval: 'Interval',
  timeout: 'Timeout',
  'start-period': 'StartPeriod',
  'start-interval': 'StartInterval',
  retries: 'Retries',
};

function healthcheck(instruction: DockerfileInstruction, context: ChangeContext): ConfigChange {
  const [type = '', ...tail] = instruction.rest.split(/\s+/);
  const rest = instruction.rest.slice(type.length).trim();
  const health: { Test: string[]; [field: string]: unknown } = { Test: [] };
  if (type.toUpperCase() === 'NONE') {
    if (tail.length > 0) throw parseError(instruction.line, 'HEALTHCHECK NONE takes no arguments');
    health.Test = ['NONE'];
  } else if (type.toUpperCase() === 'CMD') {
    const exec = parseJsonForm(rest);
    if (rest === '' || exec?.length === 0) throw parseError(instruction.line, 'Missing command after HEALTHCHECK CMD');
    health.Test = exec === undefined ? ['CMD-SHELL', rest] : ['CMD', ...exec];
    for (const flag of instruction.flags) {
      const [name = '', value] = [
        flag.split('=', 1)[0],
        flag.includes('=') ? flag.slice(flag.indexOf('=') + 1) : undefined,
      ];
      const field = HEALTH_FLAGS[name];
      if (field === undefined) throw parseError(instruction.line, `unknown flag: --${name}`);
      if (value === undefined) throw parseError(instruction.line, `missing a value on flag: --${name}`);
      const number = name === 'retries' ? Number(value) : durationNs(value, name, instruction.line);
      if (!Number.isInteger(number) || number < 0)
        throw parseError(instruction.line, `--retries cannot be negative (${value})`);
      if (number !== 0) health[field] = number;
    }
  } else if (type === '') throw parseError(instruction.line, 'HEALTHCHECK requires at least one argument');
  else throw parseError(instruction.line, `Unknown type "${type.toUpperCase()}" in HEALTHCHECK (try CMD)`);
  const seconds = (field: string): string => `${Number(health[field] ?? 0) / 1e9}s`;
  const comment = `HEALTHCHECK &{[${health.Test.map((part) => JSON.stringify(part)).join(' ')}] ${seconds('Interval')} ${seconds('Timeout')} ${seconds('StartPeriod')} ${seconds('StartInterval')} ${Number(health['Retries'] ?? 0)}}`;
  return { config: { ...context.config, Healthcheck: health as NonNullable<ImageRunConfig['Healthcheck']> }, comment };
}

const CHANGES: Readonly<Record<string, Change>> = {
  env: (instruction, context) => {
    const pairs = pairsOf(instruction, context);
    let env: readonly string[] = context.config.Env ?? [];
    for (const [name, value] of pairs) env = setEnv(env, name, value);
    return {
      config: { ...context.config, Env: env },
      comment: `ENV${pairs.map(([name, value]) => ` ${name}=${value}`).join('')}`,
    };
  },
  label: (instruction, context) => {
    const pairs = pairsOf(instruction, context);
    const labels = { ...context.config.Labels, ...Object.fromEntries(pairs) };
    return {
      config: { ...context.config, Labels: labels },
      comment: `LABEL${pairs.map(([name, value]) => ` ${name}=${value}`).join('')}`,
    };
  },
  cmd: (instruction, context) => {
    const command = commandOf(instruction.rest, context.config);
    return { config: { ...context.config, Cmd: command }, comment: `CMD ${quoteList(command)}`, setsCmd: true };
  },
  entrypoint: (instruction, context) => {
    const command = instruction.rest === '' ? [] : commandOf(instruction.rest, context.config);
    const config = { ...context.config, Entrypoint: command, ...(context.cmdSet ? {} : { Cmd: null }) };
    return { config, comment: `ENTRYPOINT ${quoteList(command)}` };
  },
  expose: (instruction, context) => {
    const words = expandWords(instruction.rest, context.escape, context.variables);
    if (words.length === 0) throw parseError(instruction.line, 'EXPOSE requires at least one argument');
    return {
      config: { ...context.config, ExposedPorts: { ...context.config.ExposedPorts, ...exposedPorts(words) } },
      comment: `EXPOSE ${words.join(' ')}`,
    };
  },
  user: (instruction, context) => {
    exactlyOne(instruction);
    const user = expandWord(instruction.rest, context.escape, context.variables);
    return { config: { ...context.config, User: user }, comment: `USER ${user}` };
  },
  volume: (instruction, context) => {
    const words = parseJsonForm(instruction.rest) ?? splitWords(instruction.rest, context.escape);
    if (words.length === 0) throw parseError(instruction.line, 'VOLUME requires at least one argument');
    const paths = words.map((word) => expandWord(word, context.escape, context.variables));
    if (paths.includes('')) throw parseError(instruction.line, 'VOLUME specified can not be an empty string');
    const volumes = { ...context.config.Volumes, ...Object.fromEntries(paths.map((path) => [path, {}])) };
    return { config: { ...context.config, Volumes: volumes }, comment: `VOLUME [${paths.join(' ')}]` };
  },
  workdir: (instruction, context) => {
    exactlyOne(instruction);
    const path = joinWorkdir(
      context.config.WorkingDir ?? '',
      expandWord(instruction.rest, context.escape, context.variables),
    );
    return { config: { ...context.config, WorkingDir: path }, comment: `WORKDIR ${path}` };
  },
  stopsignal: (instruction, context) => {
    exactlyOne(instruction);
    const signal = expandWord(instruction.rest, context.escape, context.variables);
    parseSignal(signal);
    return { config: { ...context.config, StopSignal: signal }, comment: `STOPSIGNAL ${signal}` };
  },
  shell: (instruction, context) => {
    const shell = parseJsonForm(instruction.rest);
    if (shell === undefined) throw parseError(instruction.line, 'SHELL requires the arguments to be in JSON form');
    if (shell.length === 0) throw parseError(instruction.line, 'SHELL requires at least one argument');
    return { config: { ...context.config, Shell: shell }, comment: `SHELL [${shell.join(' ')}]` };
  },
  onbuild: (instruction, context) => {
    const trigger = /^\s*ONBUILD\s*/i.test(instruction.rest)
      ? 'ONBUILD'
      : (instruction.rest.split(/\s/, 1)[0] ?? '').toUpperCase();
    if (trigger === '') throw parseError(instruction.line, 'ONBUILD requires at least one argument');
    if (trigger === 'ONBUILD')
      throw parseError(instruction.line, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    if (trigger === 'MAINTAINER' || trigger === 'FROM')
      throw parseError(instruction.line, `${trigger} isn't allowed as an ONBUILD trigger`);
    readInstruction(instruction.rest, instruction.line);
    return {
      config: { ...context.config, OnBuild: [...(context.config.OnBuild ?? []), instruction.rest] },
      comment: `ONBUILD ${instruction.rest}`,
    };
  },
  maintainer: (instruction, context) => {
    exactlyOne(instruction);
    return { config: context.config, comment: `MAINTAINER ${instruction.rest}`, maintainer: instruction.rest };
  },
  healthcheck,
};

/** Whether an instruction only changes the config. */
export function isConfigInstruction(name: string): boolean {
  return Object.hasOwn(CHANGES, name);
}

/** Applies one such instruction. */
export function applyConfigInstruction(instruction: DockerfileInstruction, context: ChangeContext): ConfigChange {
  const change = CHANGES[instruction.name];
  if (change === undefined) throw new GantryError('invalid', `unsupported command type: ${instruction.name}`);
  return change(instruction, context);
}
