/**
 * What registries answer when they refuse, and how docker words it: `code in lower case: message`.
 * (distribution-spec "Error Codes"; the texts are matched by clients.)
 */
import { STATUS_CODES } from 'node:http';
import { type ErrorKind, errorMessage, GantryError } from '#types/errors.ts';
import { plainValue, readJson } from '#wire/go-json.ts';
import { parseChallenges } from './challenge.ts';

/** Codes this client knows, with their default message and what they mean for the caller. */
const CODES: Readonly<Record<string, readonly [message: string, kind: ErrorKind]>> = {
  UNKNOWN: ['unknown error', 'system'],
  UNSUPPORTED: ['The operation is unsupported.', 'invalid'],
  UNAUTHORIZED: ['authentication required', 'unauthorized'],
  DENIED: ['requested access to the resource is denied', 'forbidden'],
  UNAVAILABLE: ['service unavailable', 'unavailable'],
  TOOMANYREQUESTS: ['too many requests', 'tooManyRequests'],
  DIGEST_INVALID: ['provided digest did not match uploaded content', 'invalid'],
  SIZE_INVALID: ['provided length did not match content length', 'invalid'],
  NAME_INVALID: ['invalid repository name', 'invalid'],
  TAG_INVALID: ['manifest tag did not match URI', 'invalid'],
  NAME_UNKNOWN: ['repository name not known to registry', 'notFound'],
  MANIFEST_UNKNOWN: ['manifest unknown', 'notFound'],
  MANIFEST_INVALID: ['manifest invalid', 'invalid'],
  MANIFEST_UNVERIFIED: ['manifest failed signature verification', 'invalid'],
  MANIFEST_BLOB_UNKNOWN: ['blob unknown to registry', 'invalid'],
  BLOB_UNKNOWN: ['blob unknown to registry', 'notFound'],
  BLOB_UPLOAD_UNKNOWN: ['blob upload unknown to registry', 'notFound'],
  BLOB_UPLOAD_INVALID: ['blob upload invalid', 'notFound'],
};

/** How an error came about; it decides whether another endpoint or another attempt makes sense. */
export type RegistryFailure =
  /** The registry was not reached or broke off. */
  | 'network'
  /** It answered with an error code. */
  | 'answer'
  /** It answered with a status or body that says nothing. */
  | 'unexpected'
  /** What it sent is not what it should be. */
  | 'content';

/** An error of a registry or of the way to it. */
export class RemoteRegistryError extends GantryError {
  readonly failure: RegistryFailure;
  /** The registry's code, e.g. `MANIFEST_UNKNOWN`; empty without one. */
  readonly code: string;
  /** HTTP status; 0 without an answer. */
  readonly status: number;

  constructor(
    kind: ErrorKind,
    message: string,
    details: { failure: RegistryFailure; code?: string; status?: number; cause?: unknown },
  ) {
    super(kind, message, { cause: details.cause });
    this.failure = details.failure;
    this.code = details.code ?? '';
    this.status = details.status ?? 0;
  }
}

/** The same error as Go's HTTP client words it, with the request in front. */
export function withRequest(method: string, url: string, error: RemoteRegistryError): RemoteRegistryError {
  const verb = method.charAt(0) + method.slice(1).toLowerCase();
  // Compat: an error inside a request is no answer to it, so docker does not translate it further.
  return new RemoteRegistryError(error.kind, `${verb} "${url}": ${error.message}`, {
    failure: error.failure === 'answer' ? 'unexpected' : error.failure,
    code: error.code,
    status: error.status,
    cause: error,
  });
}

/** An error with a code, worded as docker does. */
export function codeError(code: string, message: string, status: number): RemoteRegistryError {
  const known = Object.hasOwn(CODES, code) ? code : 'UNKNOWN';
  const kind = CODES[known]?.[1] ?? 'system';
  return new RemoteRegistryError(kind, `${codeText(known)}: ${message}`, { failure: 'answer', code: known, status });
}

function codeText(code: string): string {
  return code.toLowerCase().replaceAll('_', ' ');
}

const CODE_BY_STATUS: Readonly<Record<number, string>> = { 401: 'UNAUTHORIZED', 403: 'DENIED', 429: 'TOOMANYREQUESTS' };

/** An unsuccessful answer as an error. */
export interface FailedAnswer {
  readonly status: number;
  readonly contentType: string;
  readonly challenge: string;
  readonly body: string;
}

/** `404 Not Found`. */
export function statusText(status: number): string {
  return `${status} ${STATUS_CODES[status] ?? ''}`.trimEnd();
}

/** The error of an answer with a status of 400 or more. */
export function answerError(answer: FailedAnswer): RemoteRegistryError {
  const { status } = answer;
  if (status < 400 || status >= 500) {
    return new RemoteRegistryError('system', `received unexpected HTTP status: ${statusText(status)}`, {
      failure: 'unexpected',
      status,
    });
  }
  const inner = bodyError(answer);
  const oauth = parseChallenges(answer.challenge).find((challenge) => challenge.scheme === 'bearer');
  const code = { invalid_token: 'UNAUTHORIZED', insufficient_scope: 'DENIED' }[oauth?.parameters['error'] ?? ''];
  if (code === undefined) return inner;
  const first = codeError(
    code,
    oauth?.parameters['error_description'] ?? (CODES[code] as readonly [string, ErrorKind])[0],
    status,
  );
  return several([first, inner]);
}

function several(errors: readonly RemoteRegistryError[]): RemoteRegistryError {
  const [first] = errors as [RemoteRegistryError];
  if (errors.length === 1) return first;
  const text = `errors:\n${errors.map((error) => error.message).join('\n')}\n`;
  return new RemoteRegistryError(first.kind, text, { failure: first.failure, code: first.code, status: first.status });
}

function byStatus(status: number, details: string): RemoteRegistryError {
  return codeError(CODE_BY_STATUS[status] ?? 'UNKNOWN', details, status);
}

function bodyError(answer: FailedAnswer): RemoteRegistryError {
  const { status, body } = answer;
  const type = answer.contentType.split(';')[0]?.trim().toLowerCase() ?? '';
  if (type !== 'application/json' && type !== 'application/vnd.api+json') return byStatus(status, body);
  let parsed: unknown;
  try {
    const read = readJson(body);
    if (read === undefined) throw new Error('unexpected end of JSON input');
    parsed = plainValue(read.value);
  } catch (error) {
    return unparsable(answer, errorMessage(error));
  }
  const object = (typeof parsed === 'object' && parsed !== null ? parsed : {}) as Record<string, unknown>;
  if (typeof object['details'] === 'string' && object['details'] !== '') return byStatus(status, object['details']);
  const list = Array.isArray(object['errors']) ? (object['errors'] as unknown[]).slice(0, ERRORS_LIMIT) : [];
  if (list.length === 0) return unparsable(answer, 'no error details found in HTTP response body');
  return several(list.map((item) => itemError(item, status)));
}

/** Errors of one answer that are read. */
const ERRORS_LIMIT = 16;

function itemError(item: unknown, status: number): RemoteRegistryError {
  const fields = (typeof item === 'object' && item !== null ? item : {}) as Record<string, unknown>;
  const code = typeof fields['code'] === 'string' && Object.hasOwn(CODES, fields['code']) ? fields['code'] : 'UNKNOWN';
  const [standard, kind] = CODES[code] as readonly [string, ErrorKind];
  const message = typeof fields['message'] === 'string' ? fields['message'] : '';
  const hasDetail = fields['detail'] !== undefined && fields['detail'] !== null;
  // Compat: without detail the standard message is dropped and the code alone is the text.
  if (!hasDetail && (message === '' || message === standard)) {
    return new RemoteRegistryError(kind, codeText(code), { failure: 'answer', code, status });
  }
  return codeError(code, message === '' ? standard : message, status);
}

/** Characters of a senseless body that are quoted. */
const QUOTED_BODY_LIMIT = 512;

function unparsable(answer: FailedAnswer, why: string): RemoteRegistryError {
  const { status, body } = answer;
  if (status === 401) return codeError('UNAUTHORIZED', 'authentication required', status);
  const quoted = JSON.stringify(body.slice(0, QUOTED_BODY_LIMIT));
  return new RemoteRegistryError('system', `error parsing HTTP ${status} response body: ${why}: ${quoted}`, {
    failure: 'unexpected',
    status,
  });
}

/** Something a registry sent that is not what was asked for. */
export function contentError(message: string): RemoteRegistryError {
  return new RemoteRegistryError('invalid', message, { failure: 'content' });
}
