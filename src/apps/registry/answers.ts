/** Error answers of the distribution-spec: the one table from codes to statuses, and the JSON body. */
import { isOutOfSpace } from '#engine/registry/services.ts';
import { DistributionError, type RegistryCode } from '#types/distribution-error.ts';
import { errorKind } from '#types/errors.ts';

const STATUS: Readonly<Record<RegistryCode, number>> = {
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DENIED: 403,
  DIGEST_INVALID: 400,
  // Compat: the distribution project's registry answers 400, the spec's table has 404; clients read the code.
  MANIFEST_BLOB_UNKNOWN: 400,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  PAGINATION_NUMBER_INVALID: 400,
  RANGE_INVALID: 416,
  SIZE_INVALID: 400,
  TAG_INVALID: 400,
  TOOMANYREQUESTS: 429,
  UNAUTHORIZED: 401,
  UNAVAILABLE: 503,
  UNKNOWN: 500,
  UNSUPPORTED: 405,
};

/** Any thrown value as one of ours. What went wrong inside is not told to the client. */
export function asDistributionError(error: unknown): DistributionError {
  if (error instanceof DistributionError) return error;
  if (isOutOfSpace(error)) {
    return new DistributionError('UNAVAILABLE', {
      message: "there is no space left on the registry's disk",
      cause: error,
    });
  }
  if (errorKind(error) === 'invalid') return new DistributionError('UNSUPPORTED', { cause: error });
  return new DistributionError('UNKNOWN', { cause: error });
}

export function statusOf(error: DistributionError): number {
  return STATUS[error.code];
}

/** `{"errors":[…]}`. */
export function errorBody(error: DistributionError): string {
  const { code, message, detail } = error;
  return `${JSON.stringify({ errors: [{ code, message, ...(detail === undefined ? {} : { detail }) }] })}\n`;
}
