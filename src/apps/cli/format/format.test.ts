import assert from 'node:assert/strict';
import { test } from 'node:test';
import { humanDuration } from '#types/human-duration.ts';
import { ignoreRules } from '../archive/pack.ts';
import { DetachScanner, parseDetachKeys } from '../terminal/streams.ts';
import { bytesSize, formatGoDuration, humanSize, parseGoDuration } from '../text/go-text.ts';
import { formatPorts } from './ports.ts';

test('sizes and durations read like docker/go-units', () => {
  assert.equal(humanSize(1_980_000, 3), '1.98MB');
  assert.equal(humanSize(0), '0B');
  assert.equal(bytesSize(25_275_944_960), '23.54GiB');
  assert.equal(humanDuration(500), 'Less than a second');
  assert.equal(humanDuration(61_000), 'About a minute');
  assert.equal(humanDuration(3_600_000 * 47), '47 hours');
  assert.equal(humanDuration(86_400_000 * 15), '2 weeks');
});

test('durations parse and print like Go', () => {
  assert.equal(parseGoDuration('1h1.5s'), 3601.5e9);
  assert.equal(formatGoDuration(90e9), '1m30s');
  assert.throws(() => parseGoDuration('5'), { message: 'time: missing unit in duration "5"' });
});

test('consecutive ports are joined into ranges', () => {
  const text = formatPorts([
    { PrivatePort: 80, Type: 'tcp' },
    { PrivatePort: 81, Type: 'tcp' },
    { IP: '0.0.0.0', PrivatePort: 8080, PublicPort: 49160, Type: 'tcp' },
    { IP: '::', PrivatePort: 8080, PublicPort: 49160, Type: 'tcp' },
  ]);
  assert.equal(text, '80-81/tcp, 0.0.0.0:49160->8080/tcp, [::]:49160->8080/tcp');
});

test('the last matching line of an ignore file decides', () => {
  const rule = ignoreRules('node_modules\n*.log\n!keep.log\n**/tmp\n');
  assert.equal(rule('node_modules', true), 'walk');
  assert.equal(rule('a.log', false), 'skip');
  assert.equal(rule('keep.log', false), 'keep');
  assert.equal(rule('a/b/tmp', false), 'skip');
  assert.equal(rule('src/a.log', false), 'keep');
});

test('a broken-off detach sequence is sent on', () => {
  const scanner = new DetachScanner(parseDetachKeys(''));
  assert.deepEqual(scanner.push(Buffer.from([16])), { output: Buffer.alloc(0), detached: false });
  assert.deepEqual([...scanner.push(Buffer.from('a')).output], [16, 97]);
  assert.equal(scanner.push(Buffer.from([16, 17])).detached, true);
});
