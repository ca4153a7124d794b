/** Extra attributes of log entries: chosen labels and environment variables, and the tag (docker's log options). */
import { hostname } from 'node:os';
import { GantryError } from '#types/errors.ts';
import { shortId } from '#types/ids.ts';
import { LinearRegExp } from '#types/linear-regexp.ts';
import type { LogInfo } from './contract.ts';

/** Attributes by name, in order of name. */
export function extraAttributes(info: LogInfo): Record<string, string> {
  const { options, labels } = info;
  const found: Record<string, string> = {};
  choose(found, labels, options['labels'], options['labels-regex']);
  const env: Record<string, string> = {};
  for (const entry of info.env) {
    const separator = entry.indexOf('=');
    if (separator > 0) env[entry.slice(0, separator)] = entry.slice(separator + 1);
  }
  choose(found, env, options['env'], options['env-regex']);
  const tag = options['tag'];
  if (tag !== undefined && tag !== '') found['tag'] = expandTag(tag, info);
  return Object.fromEntries(Object.entries(found).sort(([left], [right]) => (left < right ? -1 : 1)));
}

function choose(
  into: Record<string, string>,
  from: Readonly<Record<string, string>>,
  names: string | undefined,
  pattern: string | undefined,
): void {
  for (const name of names === undefined || names === '' ? [] : names.split(',')) {
    const value = Object.hasOwn(from, name) ? from[name] : undefined;
    if (value !== undefined) into[name] = value;
  }
  if (pattern === undefined || pattern === '') return;
  const expression = new LinearRegExp(pattern);
  for (const [name, value] of Object.entries(from)) if (expression.test(name)) into[name] = value;
}

/** Expands the plain fields of a tag template; other template actions are not built. */
export function expandTag(template: string, info: LogInfo): string {
  return template.replace(/\{\{(.*?)\}\}/g, (action: string, content: string) => {
    const value = tagField(content.trim(), info);
    if (value === undefined)
      throw new GantryError('notImplemented', `log tag template action ${action} is not implemented`);
    return value;
  });
}

function tagField(field: string, info: LogInfo): string | undefined {
  switch (field) {
    case '.ID':
      return shortId(info.containerId);
    case '.FullID':
      return info.containerId;
    case '.Name':
      return info.containerName.replace(/^\//, '');
    case '.ImageID':
      return shortId(info.imageId.replace(/^sha256:/, ''));
    case '.ImageFullID':
      return info.imageId;
    case '.ImageName':
      return info.imageName;
    case '.DaemonName':
      return 'docker';
    case '.Hostname':
      return hostname();
    default:
      return undefined;
  }
}
