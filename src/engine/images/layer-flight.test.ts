import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerError, RemoteRegistryError } from '#system/registry-http/errors.ts';
import { GantryError } from '#types/errors.ts';
import { isTransient } from './layer-flight.ts';

const answer = (status: number): RemoteRegistryError =>
  answerError({ status, contentType: 'text/plain', challenge: '', body: 'no' });

test('a refusal, wrong bytes and a full disk are final; what may pass is tried again', () => {
  for (const status of [400, 401, 403, 404, 405, 410, 416, 429, 451]) {
    assert.equal(isTransient(answer(status)), false, String(status));
  }
  for (const status of [408, 500, 502, 503, 504]) assert.equal(isTransient(answer(status)), true, String(status));
  for (const code of ['ENOSPC', 'EDQUOT']) {
    const full = Object.assign(new Error(`write: ${code}`), { code });
    assert.equal(isTransient(full), false);
    assert.equal(isTransient(new GantryError('system', 'the layer was not written', { cause: full })), false);
  }
  assert.equal(isTransient(new GantryError('invalid', 'wrong bytes')), false);
  assert.equal(isTransient(new GantryError('unavailable', 'broke off')), true);
  assert.equal(isTransient(new RemoteRegistryError('system', 'unexpected EOF', { failure: 'network' })), true);
  assert.equal(isTransient(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' })), true);
});
