/** `inspect` of every kind of object: indented JSON, or a Go template for each. */
import { ExitError } from '../args/usage-error.ts';
import { type Api, ApiError, type Json } from '../connection/api.ts';
import { type Session, segment } from '../session.ts';
import { Template } from '../template/execute.ts';
import { TemplateError } from '../template/lexer.ts';
import { goJson } from '../template/values.ts';
import { platformsOf } from './platforms.ts';

type Finder = (api: Api, name: string) => Promise<Json>;

/** Keys the Engine leaves out of its JSON when they are empty but that templates may name. */
const OPTIONAL_KEYS = new Set(['Health', 'Healthcheck', 'SizeRw', 'SizeRootFs', 'StopSignal', 'StopTimeout', 'Init']);
/** Compat: the code of a template that does not parse. */
const TEMPLATE_ERROR_CODE = 64;

function compile(format: string): Template {
  try {
    return new Template(format);
  } catch (error) {
    if (error instanceof TemplateError)
      throw new ExitError(TEMPLATE_ERROR_CODE, `template parsing error: ${error.message}\n`);
    throw error;
  }
}

/** Looks up each name and prints what was found; what was not is told at the end. */
export async function inspectObjects(
  session: Session,
  names: readonly string[],
  find: (name: string) => Promise<Json>,
  options: { readonly escapeHtml?: boolean } = {},
): Promise<number> {
  const format = session.flags.text('format');
  const asJson = format === 'json';
  const template = format === '' || asJson ? undefined : compile(format);
  const found: Json[] = [];
  const failures: string[] = [];
  let output = '';
  for (const name of names) {
    try {
      const object = await find(name);
      if (template === undefined) found.push(object);
      else output += `${template.execute(object, { missingKey: 'error', optionalKeys: OPTIONAL_KEYS })}\n`;
    } catch (error) {
      if (error instanceof TemplateError) {
        session.print(`${output}\n`);
        throw new ExitError(1, `template parsing error: ${error.message}\n`);
      }
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 0) throw error;
      failures.push(error.message);
    }
  }
  if (template !== undefined) session.print(output === '' ? '\n' : output);
  else if (found.length === 0) session.print('[]\n');
  else
    session.print(
      `${goJson(found, { escapeHtml: options.escapeHtml === true, ...(asJson ? {} : { indent: '    ' }) })}\n`,
    );
  if (failures.length > 0) throw new ExitError(1, `${failures.join('\n')}\n`);
  return 0;
}

async function inspect(session: Session, find: Finder): Promise<number> {
  let api: Promise<Api> | undefined;
  const connected = (): Promise<Api> => {
    api ??= session.connect();
    return api;
  };
  return inspectObjects(session, session.args, async (name) => find(await connected(), name));
}

/** `container inspect`. */
export function inspectContainers(session: Session): Promise<number> {
  return inspect(session, (api, name) =>
    api.json('GET', `/containers/${segment(name)}/json`, { query: { size: session.flags.bool('size') || undefined } }),
  );
}

/** `image inspect`. */
export function inspectImages(session: Session): Promise<number> {
  const [platform] = platformsOf(session);
  return inspect(session, async (api, name) => {
    return api.json('GET', `/images/${segment(name)}/json`, { query: { platform } });
  });
}

/** `network inspect`. */
export function inspectNetworks(session: Session): Promise<number> {
  return inspect(session, (api, name) =>
    api.json('GET', `/networks/${segment(name)}`, { query: { verbose: session.flags.bool('verbose') || undefined } }),
  );
}

/** `volume inspect`. */
export function inspectVolumes(session: Session): Promise<number> {
  return inspect(session, (api, name) => api.json('GET', `/volumes/${segment(name)}`));
}

const KINDS: readonly [string, (name: string) => string][] = [
  ['container', (name) => `/containers/${segment(name)}/json`],
  ['image', (name) => `/images/${segment(name)}/json`],
  ['network', (name) => `/networks/${segment(name)}`],
  ['volume', (name) => `/volumes/${segment(name)}`],
  ['service', (name) => `/services/${segment(name)}`],
  ['task', (name) => `/tasks/${segment(name)}`],
  ['node', (name) => `/nodes/${segment(name)}`],
  ['plugin', (name) => `/plugins/${segment(name)}/json`],
  ['secret', (name) => `/secrets/${segment(name)}`],
  ['config', (name) => `/configs/${segment(name)}`],
];

/** Statuses that mean that this kind of object does not exist here (no swarm, not built). */
const NOT_HERE = new Set([400, 404, 405, 406, 501, 503]);

/** `inspect`: tries one kind after the other. */
export function inspectAny(session: Session): Promise<number> {
  const type = session.flags.text('type');
  const kinds = type === '' ? KINDS : KINDS.filter(([kind]) => kind === type);
  if (kinds.length === 0)
    throw new ExitError(
      1,
      `unknown type: ${JSON.stringify(type)}: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"\n`,
    );
  return inspect(session, async (api, name) => {
    for (const [kind, path] of kinds) {
      try {
        const wantsSize = session.flags.bool('size');
        const query = { size: kind === 'container' && wantsSize ? true : undefined };
        const found = await api.json('GET', path(name), { query });
        if (wantsSize && kind !== 'container') session.warn(`WARNING: --size ignored for ${kind}`);
        return found;
      } catch (error) {
        if (!(error instanceof ApiError) || !NOT_HERE.has(error.status) || type !== '') throw error;
      }
    }
    throw new ApiError(404, `Error: No such object: ${name}`);
  });
}
