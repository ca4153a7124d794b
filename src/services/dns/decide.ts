/**
 * What to do with a query, given what the container may know: answer it from the view, or forward it. Pure but
 * for the random order of several addresses.
 */
import { randomInt } from 'node:crypto';
import { RESOLVER_ADDRESS, type ResolverView, type Upstream } from './contract.ts';
import { type Answer, buildReply, CLASS_INTERNET, encodeName, type Query, RCODE, replyLimit, TYPE } from './message.ts';
import { addressOfPointer, findAddress, findName } from './names.ts';

/** Compat: docker's TTL; clients that keep answers that long see a restarted container's new address late. */
const ANSWER_TTL_SECONDS = 600;
/** Compat: docker asks no more than three servers. */
const UPSTREAMS_MAX = 3;

/** What to do with a query. */
export type Decision =
  | { readonly kind: 'reply'; readonly reply: Buffer }
  | { readonly kind: 'forward'; readonly upstreams: readonly Upstream[] };

/** Decides on one query that came over `protocol`. */
export function decide(query: Query, view: ResolverView, protocol: 'udp' | 'tcp'): Decision {
  const limitBytes = replyLimit(query, protocol);
  const reply = (options: { code?: number; answers?: readonly Answer[] }): Decision => ({
    kind: 'reply',
    reply: buildReply(query, { ...options, limitBytes }),
  });
  if (query.edns !== undefined && query.edns.version !== 0) return reply({ code: RCODE.badVersion });
  const answers = query.class === CLASS_INTERNET ? ownAnswers(query, view) : undefined;
  if (answers === 'unencodable') return reply({ code: RCODE.serverFailure });
  if (answers !== undefined) return reply({ answers: shuffled(answers) });
  // Compat: where ndots is set, a name without a dot comes back from the client with its search domains.
  if (view.ndotsSet && (query.type === TYPE.A || query.type === TYPE.AAAA) && !query.name.includes('.')) {
    return reply({});
  }
  const upstreams = usableUpstreams(view);
  return upstreams.length === 0 ? reply({ code: RCODE.serverFailure }) : { kind: 'forward', upstreams };
}

/** The view's answers; empty for a name that exists without this type; undefined when the view does not know. */
function ownAnswers(query: Query, view: ResolverView): Answer[] | 'unencodable' | undefined {
  switch (query.type) {
    case TYPE.A:
      return findName(view, query.name)?.ipv4.map(addressAnswer(TYPE.A));
    case TYPE.AAAA:
      return findName(view, query.name)?.ipv6.map(addressAnswer(TYPE.AAAA));
    case TYPE.MX:
      // RFC 5321 5.1: no MX for a name that exists means that mail goes to its address.
      return findName(view, query.name) === undefined ? undefined : [];
    case TYPE.PTR: {
      const address = addressOfPointer(query.name);
      const host = address === undefined ? undefined : findAddress(view, address);
      if (host === undefined) return undefined;
      const data = encodeName(host);
      return data === undefined ? 'unencodable' : [{ type: TYPE.PTR, ttlSeconds: ANSWER_TTL_SECONDS, data }];
    }
    default:
      return undefined;
  }
}

function addressAnswer(type: number): (data: Buffer) => Answer {
  return (data) => ({ type, ttlSeconds: ANSWER_TTL_SECONDS, data });
}

/** Every address comes first equally often, so that clients which take the first spread over all. */
function shuffled(answers: readonly Answer[]): Answer[] {
  const order = [...answers];
  for (let last = order.length - 1; last > 0; last -= 1) {
    const other = randomInt(last + 1);
    [order[last], order[other]] = [order[other] as Answer, order[last] as Answer];
  }
  return order;
}

function usableUpstreams(view: ResolverView): Upstream[] {
  return view.upstreams
    .filter(({ address, fromHost }) => (fromHost ? view.external : address !== RESOLVER_ADDRESS))
    .slice(0, UPSTREAMS_MAX);
}
