/** API versions: the range served, their comparison and the refusals of versions outside of it. */
import { GantryError } from '#types/errors.ts';
import type { ApiVersion } from './route.ts';

/** Newest API version served; a path without a version means this one. */
export const MAX_API_VERSION = '1.51';

/** Oldest API version served. */
export const MIN_API_VERSION = '1.24';

class Version implements ApiVersion {
  readonly major: number;
  readonly minor: number;
  readonly #text: string;

  constructor(text: string) {
    const [major = 0, minor = 0] = text.split('.').map((part) => Number.parseInt(part, 10) || 0);
    this.major = major;
    this.minor = minor;
    this.#text = text;
  }

  atLeast(minor: number): boolean {
    return this.major > 1 || (this.major === 1 && this.minor >= minor);
  }

  toString(): string {
    return this.#text;
  }
}

/** Parses as leniently as dockerd: missing or odd parts count as zero. */
export function apiVersion(text: string): ApiVersion {
  return new Version(text);
}

function isLess(a: ApiVersion, b: ApiVersion): boolean {
  return a.major !== b.major ? a.major < b.major : a.minor < b.minor;
}

/** Whether errors for this requested version are plain text. */
export function wantsPlainErrors(version: ApiVersion): boolean {
  return isLess(version, apiVersion('1.24'));
}

/** Throws `invalid` for a version outside of `minimum`…MAX_API_VERSION. */
export function checkVersion(version: ApiVersion, minimum: string = MIN_API_VERSION): void {
  if (isLess(version, apiVersion(minimum))) {
    throw new GantryError(
      'invalid',
      `client version ${version} is too old. Minimum supported API version is ${minimum}, please upgrade your client to a newer version`,
    );
  }
  if (isLess(apiVersion(MAX_API_VERSION), version)) {
    throw new GantryError(
      'invalid',
      `client version ${version} is too new. Maximum supported API version is ${MAX_API_VERSION}`,
    );
  }
}

/** Splits `/v1.41/info` into its version and `/info`; undefined version for a bare path. */
export function splitVersion(path: string): { readonly version: ApiVersion | undefined; readonly path: string } {
  const match = /^\/v([0-9.]+)(\/.*)$/s.exec(path);
  if (match === null) return { version: undefined, path };
  return { version: apiVersion(match[1] ?? ''), path: match[2] ?? '/' };
}
