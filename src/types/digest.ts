/** Content digests (OCI image-spec, descriptor.md): `algorithm:hex`; only sha256 and sha512 are accepted. */
import { createHash } from 'node:crypto';
import { GantryError } from './errors.ts';

/** A validated digest string such as `sha256:…`. */
export type Digest = string & { readonly __brand: 'Digest' };

const DIGEST = /^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

/** Whether `text` is a digest this engine accepts. */
export function isDigest(text: string): text is Digest {
  return DIGEST.test(text);
}

/** Parses a digest; throws `invalid` with the field's usual text. */
export function parseDigest(text: string): Digest {
  if (!isDigest(text)) throw new GantryError('invalid', 'invalid checksum digest format');
  return text;
}

/** The sha256 digest of bytes already in memory. */
export function digestOf(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
}

/** The hex part. */
export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/**
 * ChainIDs of a stack of layers, lowest first (OCI image-spec, config.md "Layer ChainID"):
 * the first is the diffID itself, each next is sha256 of "parent diffID".
 */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = [];
  for (const diffId of diffIds) {
    const parent = chain.at(-1);
    chain.push(parent === undefined ? diffId : digestOf(`${parent} ${diffId}`));
  }
  return chain;
}
