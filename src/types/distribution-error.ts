/**
 * Errors of the distribution-spec (OCI distribution-spec 1.1, "Error Codes"): a closed set of codes over the engine's
 * kinds. Texts are those clients know; `detail` says what exactly, and never holds a secret.
 */
import { type ErrorKind, GantryError } from './errors.ts';

export type RegistryCode =
  | 'BLOB_UNKNOWN'
  | 'BLOB_UPLOAD_INVALID'
  | 'BLOB_UPLOAD_UNKNOWN'
  | 'DENIED'
  | 'DIGEST_INVALID'
  | 'MANIFEST_BLOB_UNKNOWN'
  | 'MANIFEST_INVALID'
  | 'MANIFEST_UNKNOWN'
  | 'NAME_INVALID'
  | 'NAME_UNKNOWN'
  | 'PAGINATION_NUMBER_INVALID'
  | 'RANGE_INVALID'
  | 'SIZE_INVALID'
  | 'TAG_INVALID'
  | 'TOOMANYREQUESTS'
  | 'UNAUTHORIZED'
  | 'UNAVAILABLE'
  | 'UNKNOWN'
  | 'UNSUPPORTED';

/** What a code means to the engine, and the text clients print. */
const CODES: Readonly<Record<RegistryCode, readonly [ErrorKind, string]>> = {
  BLOB_UNKNOWN: ['notFound', 'blob unknown to registry'],
  BLOB_UPLOAD_INVALID: ['invalid', 'blob upload invalid'],
  BLOB_UPLOAD_UNKNOWN: ['notFound', 'blob upload unknown to registry'],
  DENIED: ['forbidden', 'requested access to the resource is denied'],
  DIGEST_INVALID: ['invalid', 'provided digest did not match uploaded content'],
  MANIFEST_BLOB_UNKNOWN: ['invalid', 'blob unknown to registry'],
  MANIFEST_INVALID: ['invalid', 'manifest invalid'],
  MANIFEST_UNKNOWN: ['notFound', 'manifest unknown'],
  NAME_INVALID: ['invalid', 'invalid repository name'],
  NAME_UNKNOWN: ['notFound', 'repository name not known to registry'],
  PAGINATION_NUMBER_INVALID: ['invalid', 'invalid number of results requested'],
  RANGE_INVALID: ['invalid', 'invalid content range'],
  SIZE_INVALID: ['invalid', 'provided length did not match content length'],
  TAG_INVALID: ['invalid', 'manifest tag did not match URI'],
  TOOMANYREQUESTS: ['unavailable', 'too many requests'],
  UNAUTHORIZED: ['unauthorized', 'authentication required'],
  UNAVAILABLE: ['unavailable', 'service unavailable'],
  UNKNOWN: ['system', 'unknown error'],
  UNSUPPORTED: ['notImplemented', 'The operation is unsupported.'],
};

/** An error the registry answers with `{"errors":[{code, message, detail}]}`. */
export class DistributionError extends GantryError {
  readonly code: RegistryCode;
  readonly detail: unknown;

  constructor(code: RegistryCode, options: { message?: string; detail?: unknown; cause?: unknown } = {}) {
    super(CODES[code][0], options.message ?? CODES[code][1], { cause: options.cause });
    this.code = code;
    this.detail = options.detail;
  }
}
