import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Metrics } from './metrics.ts';
import { Notifier, type PostJson } from './notifications.ts';

const endpoint = {
  name: 'x',
  url: 'http://x',
  headers: {},
  secret: undefined,
  timeoutMs: 1,
  ignoreActions: ['pull'],
  ignoreMediaTypes: [],
};
const request = { id: '', addr: '', host: '', method: '', useragent: '' };

function notifier(post: PostJson): Notifier {
  return new Notifier({ endpoints: [endpoint], post, warn: () => undefined, now: () => 'now', address: 'here' });
}

test('a queue that is full loses its oldest events and counts them', async () => {
  using under = notifier(async () => 500);
  for (let count = 0; count < 1500; count++)
    under.publish({ action: 'push', target: { repository: String(count) }, request, actor: {} });
  assert.deepEqual([under.pending, under.counts.dropped], [1000, 500]);
});

test('events go in order, in batches, and ignored ones not at all', async () => {
  const bodies: string[] = [];
  using under = notifier(async (_url, { body }) => {
    bodies.push(body);
    return 200;
  });
  for (let count = 0; count < 50; count++) {
    under.publish({ action: 'push', target: { repository: String(count) }, request, actor: {} });
    under.publish({ action: 'pull', target: { repository: 'ignored' }, request, actor: {} });
  }
  while (under.pending > 0) await delay(1);
  const events = bodies.flatMap((body) => JSON.parse(body).events);
  assert.deepEqual(
    events.map(({ target }) => target.repository),
    Array.from({ length: 50 }, (_, count) => String(count)),
  );
  assert.ok(bodies.every((body) => JSON.parse(body).events.length <= 20));
  assert.equal(under.counts.delivered, 50);
});

test('metrics are text in the format of Prometheus', () => {
  const metrics = new Metrics();
  metrics.counter('requests_total', 'Requests.').add(2, { path: 'a"b\\c\nd' });
  metrics.gauge('now', 'Now.', () => 7);
  metrics.histogram('seconds', 'Time.').observe(0.2, { route: 'x' });
  assert.equal(
    metrics.render(),
    [
      '# HELP requests_total Requests.',
      '# TYPE requests_total counter',
      'requests_total{path="a\\"b\\\\c\\nd"} 2',
      '# HELP now Now.',
      '# TYPE now gauge',
      'now 7',
      '# HELP seconds Time.',
      '# TYPE seconds histogram',
      ...[
        ['0.005', 0],
        ['0.025', 0],
        ['0.1', 0],
        ['0.5', 1],
        ['2.5', 1],
        ['10', 1],
        ['60', 1],
        ['+Inf', 1],
      ].map(([bound, count]) => `seconds_bucket{route="x",le="${bound}"} ${count}`),
      'seconds_sum{route="x"} 0.2',
      'seconds_count{route="x"} 1',
      '',
    ].join('\n'),
  );
});
