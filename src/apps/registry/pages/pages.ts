/**
 * Pages to browse the registry: repositories, tags, and what a tag is made of. Rendered here, without scripts; a visitor
 * sees what he may pull.
 */
import { listReferrers, listRepositories } from '#engine/registry/discover.ts';
import type { RegistryServices } from '#engine/registry/services.ts';
import type { Actor } from '#services/registry/access/access.ts';
import type { RepositoryName } from '#services/registry/contract.ts';
import { parseManifestReference, parseRepositoryName } from '#services/registry/names.ts';
import { DistributionError } from '#types/distribution-error.ts';
import { statusOf } from '../answers.ts';
import type { Exchange } from '../exchange.ts';
import { challengeBasic, loginActor } from '../server.ts';
import { CONTENT_SECURITY_POLICY, type Html, html, humanSize, page, shortTime } from './html.ts';
import { manifestBody } from './manifest-page.ts';

const PAGE_ROWS = 100;
const REPOSITORY = /^\/ui\/r\/([^:@]+)(?:[:@](.+))?$/;

interface Visit {
  readonly exchange: Exchange;
  readonly services: RegistryServices;
  readonly actor: Actor;
}

/** Answers everything below /ui/. */
export async function servePage(exchange: Exchange, services: RegistryServices): Promise<void> {
  if (exchange.method !== 'GET' && exchange.method !== 'HEAD') throw new DistributionError('UNSUPPORTED');
  if (exchange.path === '/' || exchange.path === '/ui') return exchange.empty(302, { Location: '/ui/' });
  let actor: Actor | undefined;
  try {
    actor = await loginActor(exchange, services);
    exchange.actor = actor;
    if (exchange.path === '/ui/login') {
      if (actor.user === undefined) throw unauthorized(exchange, services);
      return exchange.empty(302, { Location: '/ui/' });
    }
    const { title, body } = route({ exchange, services, actor });
    send(exchange, services, { status: 200, title, user: actor.user, body });
  } catch (error) {
    if (!(error instanceof DistributionError)) throw error;
    const body = html`<h1>${error.message}</h1><p><a href="/ui/">All repositories</a></p>`;
    send(exchange, services, { status: statusOf(error), title: error.message, user: actor?.user, body });
  }
}

function send(
  exchange: Exchange,
  services: RegistryServices,
  options: { status: number; title: string; user: string | undefined; body: Html },
): void {
  const { kind } = services.access.mode;
  exchange.bytes(options.status, page({ ...options, canLogIn: kind === 'basic' || kind === 'token' }), {
    'Content-Type': 'text/html; charset=utf-8',
    'Content-Security-Policy': CONTENT_SECURITY_POLICY,
    'Referrer-Policy': 'no-referrer',
    'X-Frame-Options': 'DENY',
    'Cache-Control': 'no-store',
  });
}

function unauthorized(exchange: Exchange, services: RegistryServices): DistributionError {
  const { kind } = services.access.mode;
  if (kind === 'basic' || kind === 'token') challengeBasic(exchange, services);
  return new DistributionError('UNAUTHORIZED');
}

function route(visit: Visit): { title: string; body: Html } {
  const { exchange, services, actor } = visit;
  if (exchange.path === '/ui/') return { title: 'Registry', body: repositoriesBody(visit) };
  const [, name = '', reference] = REPOSITORY.exec(exchange.path) ?? [];
  if (name === '') throw new DistributionError('NAME_UNKNOWN', { message: 'there is no such page' });
  const repository = parseRepositoryName(name);
  if (!actor.may('pull', repository)) {
    if (actor.user === undefined && services.access.mode.kind !== 'open') throw unauthorized(exchange, services);
    throw new DistributionError('DENIED');
  }
  if (!services.store.isKnown(repository)) throw new DistributionError('NAME_UNKNOWN');
  if (reference === undefined) return { title: repository, body: tagsBody(visit, repository) };
  const manifest = services.store.manifest(repository, parseManifestReference(reference));
  if (manifest === undefined) throw new DistributionError('MANIFEST_UNKNOWN');
  const referrers = listReferrers(services, repository, {
    subject: manifest.digest,
    artifactType: '',
    last: '',
  }).descriptors;
  const body = manifestBody({
    store: services.store,
    repository,
    reference,
    manifest,
    referrers,
    host: hostOf(exchange),
  });
  return { title: `${repository}:${reference}`, body };
}

function hostOf(exchange: Exchange): string {
  return exchange.baseUrl.replace(/^https?:\/\//, '');
}

function moreLink(path: string, names: readonly string[], hasMore: boolean): Html {
  const last = names.at(-1);
  return hasMore && last !== undefined
    ? html`<p><a href="${path}?last=${encodeURIComponent(last)}">More</a></p>`
    : html``;
}

function repositoriesBody({ exchange, services, actor }: Visit): Html {
  const last = exchange.query.get('last') ?? '';
  const { names, hasMore } = listRepositories(services, exchange.caller(actor), { last, limit: PAGE_ROWS });
  if (names.length === 0) {
    return html`<h1>Repositories</h1><p>There is nothing to see here yet.</p><pre>docker push ${hostOf(exchange)}/app:latest</pre>`;
  }
  const rows = names.map((name) => {
    const size = services.store.repositorySize(name as RepositoryName);
    return html`<tr><td><a href="/ui/r/${name}">${name}</a></td><td class="number">${humanSize(size)}</td></tr>`;
  });
  return html`<h1>Repositories</h1><div class="scroll"><table><thead><tr><th>Name</th><th class="number">Size</th></tr></thead><tbody>${rows}</tbody></table></div>${moreLink('/ui/', names, hasMore)}`;
}

function tagsBody({ exchange, services }: Visit, repository: RepositoryName): Html {
  const last = exchange.query.get('last') ?? '';
  const tags = services.store.describeTags(repository, { last, limit: PAGE_ROWS + 1 });
  const shown = tags.slice(0, PAGE_ROWS);
  const rows = shown.map(
    (tag) =>
      html`<tr><td><a href="/ui/r/${repository}:${tag.name}">${tag.name}</a></td><td><a href="/ui/r/${repository}@${tag.digest}"><code>${tag.digest.slice(0, 19)}</code></a></td><td><code>${tag.mediaType}</code></td><td class="number">${shortTime(tag.pushedAtMs)}</td></tr>`,
  );
  const table = html`<div class="scroll"><table><thead><tr><th>Tag</th><th>Digest</th><th>Type</th><th class="number">Pushed (UTC)</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  const names = shown.map(({ name }) => name);
  return html`<h1>${repository}</h1>${shown.length === 0 ? html`<p>No tags.</p>` : table}${moreLink(`/ui/r/${repository}`, names, tags.length > PAGE_ROWS)}`;
}
