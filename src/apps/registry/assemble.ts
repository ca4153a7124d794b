/** The only place that builds a registry's objects, from its settings, in an order that is undone backwards. */
import { chmodSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { collectGarbage, recoverCollection } from '#engine/registry/collect.ts';
import type { RegistryServices } from '#engine/registry/services.ts';
import { Upstream } from '#engine/registry/upstream.ts';
import { UpstreamCache } from '#engine/registry/upstream-cache.ts';
import { ENGINE_VERSION } from '#engine/version.ts';
import { Access, type AccessMode } from '#services/registry/access/access.ts';
import { RefreshTokens } from '#services/registry/access/refresh-tokens.ts';
import { Rights } from '#services/registry/access/rights.ts';
import { Users } from '#services/registry/access/users.ts';
import { TokenSigner, TokenVerifier } from '#services/registry/access/web-tokens.ts';
import { BlobFiles } from '#services/registry/blob-files.ts';
import type { Collected } from '#services/registry/collector.ts';
import { Notifier } from '#services/registry/notifications.ts';
import { Quotas } from '#services/registry/quotas.ts';
import { RegistryStore } from '#services/registry/store.ts';
import { Uploads } from '#services/registry/uploads.ts';
import { now } from '#system/clock/clock.ts';
import { Database } from '#system/database/database.ts';
import { postText } from '#system/http/request.ts';
import { tryLock } from '#system/kernel/flock.ts';
import { HttpRegistryClient } from '#system/registry-http/client.ts';
import type { RegistryOptions } from '#system/registry-http/endpoints.ts';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { TlsMaterial } from './server.ts';
import type { RegistrySettings } from './settings.ts';
import { readSecret } from './structured-settings.ts';

const USER_AGENT = `gantry-registry/${ENGINE_VERSION}`;
/** A client waits for the answer: what is here is given when the upstream takes longer. */
const UPSTREAM_TIMEOUTS = { connectMs: 10_000, answerMs: 30_000, bodyMs: 60_000, pingMs: 10_000 };

/** Opens a root's store; usable beside a serving process. */
export function openStore(root: string, graceMs: number): RegistryStore & Disposable {
  mkdirSync(root, { recursive: true, mode: 0o700 });
  // One that was there before too: images may be private, and hashes of tokens lie in the database.
  chmodSync(root, 0o700);
  const database = new Database(join(root, 'registry.db'));
  const store = new RegistryStore(database, new BlobFiles(root), { graceMs, now: Date.now });
  recoverCollection(root, store);
  return Object.assign(store, { [Symbol.dispose]: () => database[Symbol.dispose]() });
}

/** A registry ready to serve. */
export interface AssembledRegistry extends AsyncDisposable {
  readonly services: RegistryServices;
  /** One collection; undefined when another is going on. */
  collect(signal?: AbortSignal): Promise<Collected | undefined>;
  /** Reads users, rights and certificate again. Throws `invalid`, changing nothing. */
  reload(): TlsMaterial | undefined;
}

/** Builds everything. Throws `conflict` when the root is being served already. */
export function assembleRegistry(settings: RegistrySettings, warn: (message: string) => void): AssembledRegistry {
  const undo = new AsyncDisposableStack();
  try {
    mkdirSync(settings.root, { recursive: true, mode: 0o700 });
    const lock = tryLock(join(settings.root, 'serve.lock'));
    if (lock === undefined)
      throw new GantryError(
        'conflict',
        `another process serves ${settings.root}: stop it, or give this one a --root of its own`,
      );
    undo.use(lock);
    const stopping = new AbortController();
    undo.defer(() => stopping.abort());
    const store = undo.use(openStore(settings.root, settings.gc.graceMs));
    const uploads = new Uploads(
      store,
      { maxBlobBytes: settings.maxBlobBytes, maxIdleMs: settings.uploadExpiryMs },
      Date.now,
    );
    const { mode, users } = accessMode(settings, store, warn);
    if (users !== undefined) undo.use(users);
    const access = new Access(mode, readRights(settings), Date.now);
    const address = `${settings.host}:${settings.port}`;
    const notifier = undo.use(new Notifier({ endpoints: settings.webhooks, post: postText, warn, now, address }));
    const services: RegistryServices = {
      store,
      uploads,
      quotas: new Quotas(store, uploads, { totalBytes: settings.totalQuotaBytes, rules: settings.quotas }),
      access,
      notifier,
      upstream: upstreamCache(settings, store, warn, stopping.signal),
      isReadOnly: settings.isReadOnly,
    };
    return {
      services,
      collect: async (signal) => {
        uploads.expire();
        const { gc, proxy, root } = settings;
        return await collectGarbage(root, store, { ...gc, unusedAfterMs: proxy?.ttlMs, now: Date.now }, signal);
      },
      reload: () => {
        const rights = readRights(settings);
        const tls = readTls(settings);
        users?.refresh();
        access.rights = rights;
        return tls;
      },
      [Symbol.asyncDispose]: () => undo.disposeAsync(),
    };
  } catch (error) {
    void undo.disposeAsync();
    throw error;
  }
}

function readRights(settings: RegistrySettings): Rights {
  if (settings.auth === 'none') return Rights.open();
  return settings.rightsFile === '' ? Rights.standard() : Rights.read(settings.rightsFile);
}

/** The certificate and key. Throws `invalid`. */
export function readTls({ tls }: RegistrySettings): TlsMaterial | undefined {
  if (tls === undefined) return undefined;
  try {
    return { cert: readFileSync(tls.certFile), key: readFileSync(tls.keyFile) };
  } catch (error) {
    throw new GantryError('invalid', `TLS: ${errorMessage(error)}`, { cause: error });
  }
}

function accessMode(
  settings: RegistrySettings,
  store: RegistryStore,
  warn: (message: string) => void,
): { mode: AccessMode; users: Users | undefined } {
  const { auth, token, realm } = settings;
  if (auth === 'none') return { mode: { kind: 'open' }, users: undefined };
  if (auth === 'external') {
    const verifier = TokenVerifier.read(token.keysFile);
    return {
      mode: { kind: 'foreign', realm: token.realm, issuer: token.issuer, service: token.service, verifier },
      users: undefined,
    };
  }
  const users = new Users(settings.htpasswdFile, warn);
  if (auth === 'basic') return { mode: { kind: 'basic', users, realm }, users };
  const signer = new TokenSigner(join(settings.root, 'token-key.pem'));
  const refresh = new RefreshTokens(store.database, Date.now);
  return {
    mode: {
      kind: 'token',
      users,
      realm: token.realm,
      service: token.service,
      signer,
      verifier: signer.verifier,
      refresh,
    },
    users,
  };
}

function upstreamCache(
  settings: RegistrySettings,
  store: RegistryStore,
  warn: (message: string) => void,
  stopping: AbortSignal,
): UpstreamCache | undefined {
  const { proxy, maxBlobBytes, totalQuotaBytes } = settings;
  if (proxy === undefined) return undefined;
  const { protocol, host } = new URL(proxy.url);
  const credentials = proxy.user === '' ? {} : { username: proxy.user, password: readSecret(proxy.passwordFile) };
  const environment = (name: string): string => process.env[name] ?? process.env[name.toLowerCase()] ?? '';
  const options: RegistryOptions = {
    mirrors: [],
    insecure: protocol === 'http:' ? [host] : [],
    hosts: {},
    certificatesDirectory: '/etc/docker/certs.d',
    proxies: { http: environment('HTTP_PROXY'), https: environment('HTTPS_PROXY'), no: environment('NO_PROXY') },
  };
  const client = new HttpRegistryClient({ options: () => options, userAgent: USER_AGENT, timeouts: UPSTREAM_TIMEOUTS });
  const upstream = new Upstream(client, { domain: host, credentials });
  return new UpstreamCache({
    store,
    upstream,
    now: Date.now,
    warn,
    stopping,
    maxBlobBytes,
    maxTotalBytes: totalQuotaBytes,
  });
}
