import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type EngineEvent, Events, HISTORY_LIMIT, LISTENER_BACKLOG_LIMIT } from './events.ts';
import { type Filters, matchesEvent } from './filter.ts';

const SECOND = 1_000_000_000n;

function event(
  change: Partial<Omit<EngineEvent, 'Actor'>> & { id?: string; attributes?: Record<string, string> },
): EngineEvent {
  const { id = 'c'.repeat(64), attributes = {}, ...rest } = change;
  const base = { Type: 'container', Action: 'start', scope: 'local', time: 0, timeNano: 0n } as const;
  return { ...base, ...rest, Actor: { ID: id, Attributes: attributes } };
}

const filters = (entries: Record<string, string[]>): Filters => new Map(Object.entries(entries));

/** Events with a clock that goes on by a second at each publication. */
function bus(): { events: Events; publish: (action: string) => void } {
  let seconds = 0n;
  const events = new Events(() => seconds * SECOND);
  const publish = (action: string): void => {
    seconds += 1n;
    events.publish('container', action, 'id', {});
  };
  return { events, publish };
}

test('the history has the last events and is read from a time to a time', async () => {
  const { events, publish } = bus();
  for (let index = 1; index <= HISTORY_LIMIT + 10; index += 1) publish(`e${index}`);
  const read = async (sinceNs: bigint, untilNs: bigint): Promise<string[]> => {
    const found: string[] = [];
    const signal = new AbortController().signal;
    for await (const one of events.stream({ sinceNs, untilNs, filters: filters({}) }, signal)) found.push(one.Action);
    return found;
  };
  const all = await read(0n, BigInt(HISTORY_LIMIT + 10) * SECOND);
  assert.equal(all.length, HISTORY_LIMIT);
  assert.equal(all[0], 'e11');
  assert.deepEqual(await read(20n * SECOND, 22n * SECOND), ['e20', 'e21', 'e22']);
});

test('a live stream starts where the history ends, without a gap or a repetition', async () => {
  const { events, publish } = bus();
  publish('before');
  const stop = new AbortController();
  const found: string[] = [];
  const reading = (async () => {
    for await (const one of events.stream({ sinceNs: 0n, filters: filters({}) }, stop.signal)) {
      found.push(one.Action);
      // Published while the history is being read.
      if (one.Action === 'before') publish('during');
      if (one.Action === 'after') stop.abort();
    }
  })();
  await new Promise((resolve) => setImmediate(resolve));
  publish('after');
  await reading;
  assert.deepEqual(found, ['before', 'during', 'after']);
  assert.equal(events.listenerCount, 0, 'an ended stream does not listen any more');
});

test('a listener that does not read loses the oldest events and nothing grows', async () => {
  const { events, publish } = bus();
  const stop = new AbortController();
  const stream = events.stream({ filters: filters({}) }, stop.signal);
  const first = stream.next();
  publish('first');
  assert.equal((await first).value?.Action, 'first');
  for (let index = 1; index <= LISTENER_BACKLOG_LIMIT + 5; index += 1) publish(`e${index}`);
  assert.equal((await stream.next()).value?.Action, 'e6');
  stop.abort();
  await stream.return(undefined);
});

test('a stream ends at its time although nothing happens', async () => {
  const events = new Events(() => BigInt(Date.now()) * 1_000_000n);
  const untilNs = BigInt(Date.now() + 60) * 1_000_000n;
  const stream = events.stream({ untilNs, filters: filters({}) }, new AbortController().signal);
  assert.equal((await stream.next()).done, true);
});

const CASES: readonly (readonly [string, EngineEvent, Record<string, string[]>, boolean])[] = [
  ['no filter', event({}), {}, true],
  ['one of several values', event({ Action: 'die' }), { event: ['start', 'die'] }, true],
  ['another value', event({ Action: 'die' }), { event: ['start'] }, false],
  ['all keys must match', event({ Action: 'start' }), { event: ['start'], type: ['network'] }, false],
  ['an exec action by its first word', event({ Action: 'exec_start: sh -c x' }), { event: ['exec_start'] }, true],
  [
    'a health status by its first word',
    event({ Action: 'health_status: healthy' }),
    { event: ['health_status'] },
    true,
  ],
  ['other actions in full only', event({ Action: 'exec_die' }), { event: ['exec'] }, false],
  ['a container by name', event({ attributes: { name: 'web' } }), { container: ['web'] }, true],
  ['a container by ID prefix', event({}), { container: ['cccc'] }, true],
  ['an object of another type', event({ Type: 'network', attributes: { name: 'web' } }), { container: ['web'] }, false],
  ['a label with its value', event({ attributes: { a: 'b' } }), { label: ['a=b'] }, true],
  ['a label alone', event({ attributes: { a: 'b' } }), { label: ['a'] }, true],
  ['labels must all match', event({ attributes: { a: 'b' } }), { label: ['a', 'c'] }, false],
  ['a label of another value', event({ attributes: { a: 'b' } }), { label: ['a=c'] }, false],
  ['the image of a container', event({ attributes: { image: 'busybox:1' } }), { image: ['busybox'] }, true],
  ['a registry port is no tag', event({ attributes: { image: 'host:5000/app' } }), { image: ['host'] }, false],
  ['the scope', event({}), { scope: ['swarm'] }, false],
];
for (const [name, one, wanted, expected] of CASES) {
  test(`filter: ${name}`, () => assert.equal(matchesEvent(one, filters(wanted)), expected));
}

test('a stream ends at its end also when timers run ahead of the clock', { timeout: 5_000 }, async () => {
  // Every reading lags: the timer for the end fires before the clock gets there.
  let lagNs = 8_000_000n;
  const lagging = (): bigint => {
    lagNs = lagNs > 0n ? lagNs - 1_000_000n : 0n;
    return BigInt(Date.now()) * 1_000_000n - lagNs;
  };
  const events = new Events(lagging);
  const untilNs = lagging() + 20_000_000n;
  for await (const event of events.stream({ untilNs, filters: new Map() }, new AbortController().signal)) {
    assert.fail(`unexpected ${event.Action}`);
  }
  assert.ok(lagging() >= untilNs);
});
