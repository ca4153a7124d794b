/** What speaks to registries: pull, push, login, search and the inspection of a distribution. */
import { inspectDistribution } from '#engine/images/distribution.ts';
import { type PullContext, pullImage } from '#engine/images/pull.ts';
import { type PushContext, pushImage } from '#engine/images/push.ts';
import { SEARCH_FILTERS, searchImages } from '#engine/images/search.ts';
import { makeReference } from '#engine/images/tag.ts';
import { isDigest } from '#types/digest.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import { type Platform, parsePlatform } from '#types/platform.ts';
import { nameOnly, parseReference, type Reference, withTag } from '#types/reference.ts';
import { bodyBytes } from '../http/body.ts';
import { credentialsOf, metaHeaders, registryAuth } from '../http/credentials.ts';
import type { Handler, Route, RouteContext } from '../http/route.ts';
import { decodePlatform, streaming } from './images.ts';

export interface RegistryRouteDependencies {
  readonly pull: PullContext;
  readonly push: PushContext;
}

/** Bytes of a login. */
const AUTH_BODY_LIMIT_BYTES = 1024 * 1024;

/** The reference of a pull: `tag` may be a digest. */
function pullReference(name: string, tag: string): Reference {
  // Compat: pulling all tags, docker's clients may send `name:`.
  const reference = parseReference(name.replace(/:$/, ''));
  if (tag === '') return reference;
  if (isDigest(tag)) return { ...nameOnly(reference), digest: tag };
  return withTag(nameOnly(reference), tag);
}

/** `POST /images/create?fromImage=…`. */
export function pullHandler(pull: PullContext): Handler {
  return async (context) => {
    const { query, version } = context;
    const reference = pullReference(query.text('fromImage'), query.text('tag'));
    const wanted = version.atLeast(32) ? query.text('platform') : '';
    const platform = wanted === '' ? {} : { platform: parsePlatform(wanted) };
    const meta = metaHeaders(context.request);
    const options = { reference, credentials: registryAuth(context.request), metaHeaders: meta, ...platform };
    await streaming(context, (write) => pullImage(pull, { ...options, write }, context.signal));
  };
}

function pushHandler(push: PushContext): Handler {
  return async (context) => {
    const { query, params, version } = context;
    const name = params['name'] ?? '';
    const tag = query.text('tag');
    const reference = tag === '' ? parseReference(name) : makeReference(name, tag);
    const wanted = version.atLeast(46) ? query.text('platform') : '';
    const platform: { platform?: Platform } = wanted === '' ? {} : { platform: decodePlatform(wanted) };
    const meta = metaHeaders(context.request);
    const options = { reference, credentials: registryAuth(context.request), metaHeaders: meta, ...platform };
    await streaming(context, (write) => pushImage(push, { ...options, write }, context.signal));
  };
}

async function readLogin(context: RouteContext): Promise<unknown> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of bodyBytes(context.request)) {
    sizeBytes += chunk.length;
    if (sizeBytes > AUTH_BODY_LIMIT_BYTES)
      throw new GantryError('invalid', 'invalid JSON: http: request body too large');
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (error) {
    // The text itself is not quoted: it holds a password.
    throw new GantryError('invalid', 'invalid JSON', { cause: errorMessage(error).length });
  }
}

/** The routes. */
export function registryRoutes(dependencies: RegistryRouteDependencies): Route[] {
  const { pull, push } = dependencies;
  const { registries } = pull;
  const login: Handler = async (context) => {
    const credentials = credentialsOf(await readLogin(context));
    if (credentials === undefined) throw new GantryError('invalid', 'invalid JSON: AuthConfig expected');
    const { status, identityToken } = await registries.login(credentials, context.signal);
    context.json({ IdentityToken: identityToken, Status: status });
  };
  const search: Handler = async (context) => {
    const { query, request, signal } = context;
    const limit = query.text('limit');
    if (limit !== '' && !/^[+-]?\d{1,9}$/.test(limit)) {
      throw new GantryError('invalid', `invalid limit specified: strconv.Atoi: parsing "${limit}": invalid syntax`);
    }
    if (Number(limit) < 0) throw new GantryError('invalid', 'invalid limit specified');
    const filters = query.filters(SEARCH_FILTERS);
    const options = { term: query.text('term'), limit: Number(limit), filters, credentials: registryAuth(request) };
    context.json(await searchImages(registries, options, signal));
  };
  const distribution: Handler = async (context) => {
    const credentials = registryAuth(context.request);
    context.json(await inspectDistribution(registries, context.params['name'] ?? '', credentials, context.signal));
  };
  return [
    { method: 'POST', path: '/auth', handler: login },
    { method: 'GET', path: '/images/search', handler: search },
    { method: 'POST', path: '/images/{name:.*}/push', handler: pushHandler(push) },
    { method: 'GET', path: '/distribution/{name:.*}/json', handler: distribution, since: 30 },
  ];
}
