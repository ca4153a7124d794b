/**
 * JSON web tokens (RFC 7519) as the registry uses them: its own are signed with ES256; foreign ones are taken from a
 * fixed set of public keys. The algorithm follows from the key, never from the token, so a token cannot choose a
 * weaker one.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKeyInput,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { errorMessage, GantryError } from '#types/errors.ts';
import type { Scope } from './scopes.ts';

/** Longest token that is looked at. */
const MAX_TOKEN_BYTES = 64 * 1024;
/** Clocks of two machines may differ by this. */
const LEEWAY_SECONDS = 60;

/** What a token says. */
export interface Claims {
  readonly iss: string;
  readonly sub: string;
  readonly aud: string | readonly string[];
  readonly exp: number;
  readonly nbf: number;
  readonly iat: number;
  readonly jti: string;
  readonly access: readonly Scope[];
}

interface VerifyingKey {
  readonly id: string | undefined;
  readonly algorithm: string;
  readonly key: KeyObject;
}

interface Algorithm {
  readonly hash: string | undefined;
  readonly options: { readonly dsaEncoding?: 'ieee-p1363' };
}

const ALGORITHMS: Readonly<Record<string, Algorithm>> = {
  ES256: { hash: 'sha256', options: { dsaEncoding: 'ieee-p1363' } },
  ES384: { hash: 'sha384', options: { dsaEncoding: 'ieee-p1363' } },
  RS256: { hash: 'sha256', options: {} },
  EdDSA: { hash: undefined, options: {} },
};

function algorithmOf(key: KeyObject): string {
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (key.asymmetricKeyType === 'ec' && curve === 'prime256v1') return 'ES256';
  if (key.asymmetricKeyType === 'ec' && curve === 'secp384r1') return 'ES384';
  if (key.asymmetricKeyType === 'rsa' && (key.asymmetricKeyDetails?.modulusLength ?? 0) >= 2048) return 'RS256';
  if (key.asymmetricKeyType === 'ed25519') return 'EdDSA';
  throw new GantryError('invalid', 'a token key must be EC P-256 or P-384, RSA of 2048 bits or more, or Ed25519');
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

/** Signs with the registry's own key, made once a root. */
export class TokenSigner {
  readonly #key: KeyObject;

  /** Reads the key, making it when there is none. */
  constructor(file: string) {
    if (!existsSync(file)) {
      const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      writeFileSync(file, pair.privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600, flush: true });
    }
    this.#key = createPrivateKey(readFileSync(file));
  }

  /** A signed token. */
  sign(claims: Claims): string {
    const algorithm = ALGORITHMS['ES256'] ?? { hash: 'sha256', options: {} };
    const text = `${encode({ typ: 'JWT', alg: 'ES256' })}.${encode(claims)}`;
    return `${text}.${sign(algorithm.hash, Buffer.from(text), { key: this.#key, ...algorithm.options }).toString('base64url')}`;
  }

  /** What its tokens are verified with. */
  get verifier(): TokenVerifier {
    const key = createPublicKey(this.#key);
    return new TokenVerifier([{ id: undefined, algorithm: 'ES256', key }]);
  }
}

/** Verifies against fixed keys. */
export class TokenVerifier {
  readonly #keys: readonly VerifyingKey[];

  constructor(keys: readonly VerifyingKey[]) {
    this.#keys = keys;
  }

  /** Reads a JWKS, a PEM public key or a PEM certificate. */
  static read(file: string): TokenVerifier {
    try {
      const text = readFileSync(file, 'utf8');
      if (!text.trimStart().startsWith('{')) {
        const key = createPublicKey(text);
        return new TokenVerifier([{ id: undefined, algorithm: algorithmOf(key), key }]);
      }
      const { keys } = JSON.parse(text) as { keys?: (JsonWebKeyInput['key'] & { kid?: string })[] };
      if (!Array.isArray(keys) || keys.length === 0) throw new GantryError('invalid', 'there are no keys in it');
      return new TokenVerifier(
        keys.map((jwk) => {
          const key = createPublicKey({ key: jwk, format: 'jwk' });
          return { id: jwk.kid, algorithm: algorithmOf(key), key };
        }),
      );
    } catch (error) {
      throw new GantryError('invalid', `token keys ${file}: ${errorMessage(error)}`, { cause: error });
    }
  }

  /** The claims of a token that is signed, in time and meant for us; undefined for any other. */
  verify(token: string, expected: { issuer: string; service: string; nowMs: number }): Claims | undefined {
    if (token.length > MAX_TOKEN_BYTES) return undefined;
    const [head, body, signature, more] = token.split('.');
    if (head === undefined || body === undefined || signature === undefined || more !== undefined) return undefined;
    try {
      const header = JSON.parse(Buffer.from(head, 'base64url').toString()) as { alg?: unknown; kid?: unknown };
      if (!this.#isSigned(`${head}.${body}`, signature, header)) return undefined;
      const claims = JSON.parse(Buffer.from(body, 'base64url').toString()) as Claims;
      return isCurrent(claims, expected) ? claims : undefined;
    } catch {
      return undefined;
    }
  }

  #isSigned(text: string, signature: string, header: { alg?: unknown; kid?: unknown }): boolean {
    const bytes = Buffer.from(signature, 'base64url');
    return this.#keys.some((candidate) => {
      if (header.alg !== candidate.algorithm) return false;
      if (candidate.id !== undefined && header.kid !== undefined && header.kid !== candidate.id) return false;
      const algorithm = ALGORITHMS[candidate.algorithm];
      if (algorithm === undefined) return false;
      return verify(algorithm.hash, Buffer.from(text), { key: candidate.key, ...algorithm.options }, bytes);
    });
  }
}

function isCurrent(claims: Claims, expected: { issuer: string; service: string; nowMs: number }): boolean {
  const now = expected.nowMs / 1000;
  const audiences = typeof claims.aud === 'string' ? [claims.aud] : claims.aud;
  if (claims.iss !== expected.issuer || !Array.isArray(audiences) || !audiences.includes(expected.service))
    return false;
  if (typeof claims.exp !== 'number' || claims.exp + LEEWAY_SECONDS < now) return false;
  if (typeof claims.nbf === 'number' && claims.nbf - LEEWAY_SECONDS > now) return false;
  const access: unknown = claims.access ?? [];
  return (
    Array.isArray(access) &&
    access.every(
      (scope) => typeof scope?.type === 'string' && typeof scope.name === 'string' && Array.isArray(scope.actions),
    )
  );
}
