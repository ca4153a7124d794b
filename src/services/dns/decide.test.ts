import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NamedEndpoint, ResolverNetwork, ResolverView, Upstream } from './contract.ts';
import { type Decision, decide } from './decide.ts';
import { DNS_TYPE, dnsQuery, readDns } from './fake-messages.ts';
import { receiveQuery } from './message.ts';
import { addressOfPointer } from './names.ts';

const hostServer: Upstream = { address: '10.9.9.9', fromHost: true };

function endpoint(names: string[], ipv4: string, ipv6 = ''): NamedEndpoint {
  return { names, ipv4, ipv6 };
}

function network(
  name: string,
  endpoints: NamedEndpoint[],
  links: readonly (readonly [string, string])[] = [],
): ResolverNetwork {
  return { name, endpoints, links: new Map(links) };
}

function view(networks: ResolverNetwork[], options: Partial<ResolverView> = {}): ResolverView {
  return { networks, upstreams: [hostServer], external: true, ndotsSet: false, ...options };
}

function ask(name: string, asked: ResolverView, options: Parameters<typeof dnsQuery>[1] = {}): Decision {
  const received = receiveQuery(dnsQuery(name, options));
  if (received.kind !== 'query') throw new Error(`${name}: ${received.kind}`);
  return decide(received.query, asked, 'udp');
}

/** Addresses in order, `empty` for an answer without records, an error code, or where it is forwarded. */
function outcome(name: string, asked: ResolverView, options: Parameters<typeof dnsQuery>[1] = {}): string {
  const decision = ask(name, asked, options);
  if (decision.kind === 'forward') return `forward ${decision.upstreams.map(({ address }) => address).join(' ')}`;
  const reply = readDns(decision.reply);
  if (reply.code !== 0) return `code ${reply.code}`;
  const texts = reply.answers.map(({ text }) => text).sort();
  return texts.join(' ') || 'empty';
}

const front = network('front', [
  endpoint(['web', 'www', '0123456789ab', 'hostname'], '172.20.0.2', 'fd00::2'),
  endpoint(['db.one', 'shared'], '172.20.0.3'),
  endpoint(['db.two', 'Shared'], '172.20.0.4'),
]);
const back = network('back.end', [endpoint(['web'], '172.21.0.2'), endpoint(['cache'], '172.21.0.3')]);
const both = view([front, back]);

test('names, aliases and short IDs are known, whatever their case', () => {
  for (const name of ['web', 'www', 'WEB', '0123456789ab', 'hostname', 'Web.']) {
    assert.equal(outcome(name, both), '172.20.0.2', name);
  }
  assert.equal(outcome('nobody', both), 'forward 10.9.9.9');
});

test('a name that several containers carry has all their addresses, each first at times', () => {
  assert.equal(outcome('shared', both), '172.20.0.3 172.20.0.4');
  const firsts = new Set<string>();
  for (let round = 0; round < 200 && firsts.size < 2; round += 1) {
    const decision = ask('shared', both);
    if (decision.kind === 'reply') firsts.add(readDns(decision.reply).answers[0]?.text ?? '');
  }
  assert.equal(firsts.size, 2);
});

test('a network name behind the name asks only that network; both may have dots', () => {
  assert.equal(outcome('web.front', both), '172.20.0.2');
  assert.equal(outcome('web.back.end', both), '172.21.0.2');
  assert.equal(outcome('db.one', both), '172.20.0.3');
  assert.equal(outcome('db.one.front', both), '172.20.0.3');
  assert.equal(outcome('cache.front', both), 'forward 10.9.9.9');
  assert.equal(outcome('web.elsewhere', both), 'forward 10.9.9.9');
});

test('the first network of the container wins', () => {
  assert.equal(outcome('web', view([back, front])), '172.21.0.2');
});

test('a name that has no address of the family asked for is not forwarded', () => {
  assert.equal(outcome('web', both, { type: DNS_TYPE.AAAA }), 'fd000000000000000000000000000002');
  assert.equal(outcome('db.one', both, { type: DNS_TYPE.AAAA }), 'empty');
  const six = view([network('six', [endpoint(['only6'], '', 'fd00:0:0::7')])]);
  assert.equal(outcome('only6', six), 'empty');
  assert.equal(outcome('only6', six, { type: DNS_TYPE.MX }), 'empty', 'mail goes to the address itself');
});

test('links are the asking container’s own, and hide a container of the alias’s name', () => {
  const linked = view([
    network(
      'front',
      [...front.endpoints],
      [
        ['www', 'db.one'],
        ['Store', 'db.two'],
      ],
    ),
  ]);
  assert.equal(outcome('www', linked), '172.20.0.3');
  assert.equal(outcome('store', linked), '172.20.0.4');
  assert.equal(outcome('www', both), '172.20.0.2');
  const gone = view([network('front', [...front.endpoints], [['www', 'removed']])]);
  assert.equal(outcome('www', gone), 'forward 10.9.9.9');
});

test('an address is answered with the container’s name and network', () => {
  const pointer = (name: string): string => outcome(name, both, { type: DNS_TYPE.PTR });
  assert.equal(pointer('2.0.20.172.in-addr.arpa'), 'web.front');
  assert.equal(pointer('2.0.21.172.IN-ADDR.ARPA'), 'web.back.end');
  assert.equal(pointer(`2.${'0.'.repeat(29)}d.f.ip6.arpa`), 'web.front');
  assert.equal(pointer('9.0.20.172.in-addr.arpa'), 'forward 10.9.9.9');
  for (const bad of ['0.20.172.in-addr.arpa', '02.0.20.172.in-addr.arpa', '256.0.20.172.in-addr.arpa', 'f.ip6.arpa']) {
    assert.equal(addressOfPointer(bad), undefined, bad);
  }
});

test('a name DNS cannot carry fails instead of being cut', () => {
  const long = view([network('net', [endpoint(['x'.repeat(64)], '172.20.0.9')])]);
  assert.equal(outcome('9.0.20.172.in-addr.arpa', long, { type: DNS_TYPE.PTR }), 'code 2');
});

test('other types, other classes and other EDNS versions', () => {
  for (const type of [DNS_TYPE.TXT, DNS_TYPE.SRV, DNS_TYPE.ANY, 65]) {
    assert.equal(outcome('web', both, { type }), 'forward 10.9.9.9', String(type));
  }
  assert.equal(outcome('web', both, { class: 3 }), 'forward 10.9.9.9');
  const decision = ask('web', both, { ednsBytes: 1232, ednsVersion: 1 });
  assert.equal(decision.kind === 'reply' && readDns(decision.reply).additional[0]?.ttl, 1 << 24);
});

test('which servers are asked', () => {
  const servers = (...list: Upstream[]): ResolverView => view([front], { upstreams: list });
  const own: Upstream = { address: '127.0.0.11', fromHost: false };
  const container: Upstream = { address: '1.1.1.1', fromHost: false };
  assert.equal(outcome('x.y', servers(own, container, hostServer)), 'forward 1.1.1.1 10.9.9.9', 'never itself');
  assert.equal(outcome('x.y', servers({ ...own, fromHost: true })), 'forward 127.0.0.11', 'the host’s own');
  assert.equal(outcome('x.y', servers(container, container, container, hostServer)), 'forward 1.1.1.1 1.1.1.1 1.1.1.1');
  assert.equal(outcome('x.y', { ...servers(hostServer), external: false }), 'code 2', 'no way out');
  assert.equal(outcome('x.y', { ...servers(hostServer, container), external: false }), 'forward 1.1.1.1');
  assert.equal(outcome('x.y', servers()), 'code 2');
});

test('with ndots set, an unknown name without a dot is left to the client’s search list', () => {
  const asked = { ...both, ndotsSet: true };
  assert.equal(outcome('nobody', asked), 'empty');
  assert.equal(outcome('nobody.example', asked), 'forward 10.9.9.9');
  assert.equal(outcome('nobody', asked, { type: DNS_TYPE.TXT }), 'forward 10.9.9.9');
});

test('many addresses of one name are cut to what the client takes', () => {
  const many = view([
    network(
      'big',
      Array.from({ length: 200 }, (_, index) => endpoint(['svc'], `10.1.0.${index + 1}`)),
    ),
  ]);
  const decision = ask('svc', many);
  const reply = readDns(decision.kind === 'reply' ? decision.reply : Buffer.alloc(0));
  assert.ok(reply.truncated && reply.sizeBytes <= 512 && reply.answers.length > 20);
});
