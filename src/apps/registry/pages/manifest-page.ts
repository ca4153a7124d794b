/** The page of one manifest: an index's platforms, or an image's configuration and layers with what made them. */
import { readFileSync } from 'node:fs';
import type { Descriptor, RepositoryName, StoredManifest } from '#services/registry/contract.ts';
import { isIndexType, type ParsedManifest, parseManifest } from '#services/registry/manifest.ts';
import type { RegistryStore } from '#services/registry/store.ts';
import { type Html, html, humanSize } from './html.ts';

/** Larger configurations are not shown. */
const MAX_CONFIG_BYTES = 1024 * 1024;
/** Rows of one table. */
const MAX_ROWS = 500;

/** Images need not be called artifacts of their configuration's type. */
const PLAIN_CONFIGS: ReadonlySet<string> = new Set([
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
]);

export interface ManifestPage {
  readonly store: RegistryStore;
  readonly repository: RepositoryName;
  readonly reference: string;
  readonly manifest: StoredManifest;
  readonly referrers: readonly Descriptor[];
  /** Name of this registry in a reference. */
  readonly host: string;
}

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

/** The page's body. */
export function manifestBody(page: ManifestPage): Html {
  const { repository, reference, manifest, referrers, host } = page;
  const parsed = parseManifest(manifest.bytes, manifest.mediaType);
  const separator = reference.includes(':') ? '@' : ':';
  const annotations = Object.entries(parsed.annotations).map(
    ([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`,
  );
  return html`<h1><a href="/ui/r/${repository}">${repository}</a>${separator}${reference}</h1>
<pre>docker pull ${host}/${repository}${separator}${reference}</pre>
<dl><dt>Digest</dt><dd><code>${manifest.digest}</code></dd><dt>Type</dt><dd><code>${manifest.mediaType}</code></dd>
${parsed.artifactType === '' || PLAIN_CONFIGS.has(parsed.artifactType) ? html`` : html`<dt>Artifact</dt><dd><code>${parsed.artifactType}</code></dd>`}
${parsed.subject === undefined ? html`` : html`<dt>Subject</dt><dd>${manifestLink(repository, parsed.subject)}</dd>`}${annotations}</dl>
${isIndexType(manifest.mediaType) ? indexBody(repository, parsed) : imageBody(page, parsed)}
${referrers.length === 0 ? html`` : referrersBody(repository, referrers)}`;
}

function manifestLink(repository: RepositoryName, { digest }: Descriptor): Html {
  return html`<a href="/ui/r/${repository}@${digest}"><code>${digest.slice(0, 19)}</code></a>`;
}

function platformOf({ platform = {} }: Descriptor): string {
  const { os, architecture, variant } = platform as Fields;
  return [os, architecture, variant].filter((part) => typeof part === 'string' && part !== '').join('/');
}

function indexBody(repository: RepositoryName, parsed: ParsedManifest): Html {
  const rows = parsed.manifests
    .slice(0, MAX_ROWS)
    .map(
      (item) =>
        html`<tr><td>${platformOf(item)}</td><td>${manifestLink(repository, item)}</td><td><code>${item.mediaType}</code></td></tr>`,
    );
  return html`<h2>Platforms</h2><div class="scroll"><table><thead><tr><th>Platform</th><th>Digest</th><th>Type</th></tr></thead><tbody>${rows}</tbody></table></div>`;
}

function referrersBody(repository: RepositoryName, referrers: readonly Descriptor[]): Html {
  const rows = referrers
    .slice(0, MAX_ROWS)
    .map(
      (item) =>
        html`<tr><td><code>${item.artifactType ?? ''}</code></td><td>${manifestLink(repository, item)}</td><td class="number">${humanSize(item.sizeBytes)}</td></tr>`,
    );
  return html`<h2>Referrers</h2><div class="scroll"><table><thead><tr><th>Type</th><th>Digest</th><th class="number">Size</th></tr></thead><tbody>${rows}</tbody></table></div>`;
}

function readConfig({ store, repository }: ManifestPage, { config }: ParsedManifest): Fields {
  if (config === undefined || config.sizeBytes > MAX_CONFIG_BYTES) return {};
  if (store.blobSize(repository, config.digest) === undefined) return {};
  try {
    return fieldsOf(JSON.parse(readFileSync(store.files.path(config.digest), 'utf8')));
  } catch {
    // An artifact's configuration may be anything.
    return {};
  }
}

/** What made each layer, as far as the history tells. */
function commandsOf(config: Fields): string[] {
  const { history } = config;
  if (!Array.isArray(history)) return [];
  return history
    .map(fieldsOf)
    .filter((step) => step['empty_layer'] !== true)
    .map((step) => String(step['created_by'] ?? '').slice(0, 1000));
}

function words(value: unknown): string {
  return Array.isArray(value) ? value.map((word) => JSON.stringify(word)).join(' ') : String(value ?? '');
}

function imageBody(page: ManifestPage, parsed: ParsedManifest): Html {
  const config = readConfig(page, parsed);
  const run = fieldsOf(config['config']);
  const facts = [
    [
      'Platform',
      [config['os'], config['architecture'], config['variant']].filter((part) => typeof part === 'string').join('/'),
    ],
    ['Created', String(config['created'] ?? '')],
    ['Entrypoint', words(run['Entrypoint'])],
    ['Command', words(run['Cmd'])],
    ['User', String(run['User'] ?? '')],
    ['Working directory', String(run['WorkingDir'] ?? '')],
    ['Ports', Object.keys(fieldsOf(run['ExposedPorts'])).join(', ')],
    ['Size', humanSize(parsed.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0))],
  ].filter(([, value]) => value !== '');
  const commands = commandsOf(config);
  const rows = parsed.layers
    .slice(0, MAX_ROWS)
    .map(
      (layer, index) =>
        html`<tr><td>${index + 1}</td><td><code>${layer.digest.slice(0, 19)}</code></td><td class="number">${humanSize(layer.sizeBytes)}</td><td><code>${commands[index] ?? layer.mediaType}</code></td></tr>`,
    );
  return html`<dl>${facts.map(([name = '', value = '']) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
<h2>Layers</h2><div class="scroll"><table><thead><tr><th>#</th><th>Digest</th><th class="number">Size</th><th>Made by</th></tr></thead><tbody>${rows}</tbody></table></div>`;
}
