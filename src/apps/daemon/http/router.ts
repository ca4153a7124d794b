/**
 * A trie of routes per method. Literal segments win over `{name}`, those over `{name:.*}`; of several
 * `{name:.*}` routes the one with the longest literal tail wins. Paths are matched after percent-decoding,
 * so an image name may come escaped or not.
 */
import type { Route } from './route.ts';

interface Tail {
  readonly name: string;
  readonly suffix: readonly string[];
  readonly route: Route;
}

interface Node {
  readonly literal: Map<string, Node>;
  parameter: Node | undefined;
  readonly tails: Tail[];
  route: Route | undefined;
}

/** A matched route with its decoded parameters. */
export interface Match {
  readonly route: Route;
  readonly params: Readonly<Record<string, string>>;
}

function emptyNode(): Node {
  return { literal: new Map(), parameter: undefined, tails: [], route: undefined };
}

/** Compat: dockerd answers some collections with a trailing slash too; `/networks/` is its own route. */
function segmentsOf(path: string): string[] {
  return path.split('/').slice(1);
}

export class Router {
  readonly #roots = new Map<string, Node>();

  constructor(routes: readonly Route[]) {
    for (const route of routes) this.#add(route);
  }

  #add(route: Route): void {
    let node = this.#roots.get(route.method) ?? emptyNode();
    this.#roots.set(route.method, node);
    const segments = segmentsOf(route.path);
    for (const [index, segment] of segments.entries()) {
      const tail = /^\{(\w+):\.\*\}$/.exec(segment);
      if (tail !== null) {
        node.tails.push({ name: tail[1] ?? '', suffix: segments.slice(index + 1), route });
        node.tails.sort((a, b) => b.suffix.length - a.suffix.length);
        return;
      }
      node = /^\{\w+\}$/.test(segment) ? parameterOf(node) : literalOf(node, segment);
    }
    // The first route of a kind stays: real routes come before the not-built ones.
    node.route ??= route;
  }

  /** The route for a decoded path, without its version. */
  match(method: string, path: string): Match | undefined {
    const root = this.#roots.get(method);
    if (root === undefined) return undefined;
    const segments = segmentsOf(path);
    const values: string[] = [];
    const found = walk(root, { segments, values, index: 0 });
    if (found === undefined) return undefined;
    return { route: found.route, params: paramsOf(found.route, values, found.tail) };
  }
}

function parameterOf(node: Node): Node {
  node.parameter ??= emptyNode();
  return node.parameter;
}

function literalOf(node: Node, segment: string): Node {
  const next = node.literal.get(segment) ?? emptyNode();
  node.literal.set(segment, next);
  return next;
}

interface Walk {
  readonly segments: readonly string[];
  readonly values: string[];
  readonly index: number;
}

interface Found {
  readonly route: Route;
  readonly tail: string | undefined;
}

function walk(node: Node, at: Walk): Found | undefined {
  const segment = at.segments[at.index];
  if (segment === undefined) return node.route === undefined ? undefined : { route: node.route, tail: undefined };
  const next = { ...at, index: at.index + 1 };
  const literal = node.literal.get(segment);
  const direct = literal === undefined ? undefined : walk(literal, next);
  if (direct !== undefined) return direct;
  if (node.parameter !== undefined && segment !== '') {
    at.values.push(segment);
    const found = walk(node.parameter, next);
    if (found !== undefined) return found;
    at.values.pop();
  }
  return matchTail(node, at);
}

function matchTail(node: Node, at: Walk): Found | undefined {
  const remaining = at.segments.slice(at.index);
  for (const tail of node.tails) {
    const length = remaining.length - tail.suffix.length;
    if (length < 1) continue;
    if (!tail.suffix.every((segment, index) => remaining[length + index] === segment)) continue;
    return { route: tail.route, tail: remaining.slice(0, length).join('/') };
  }
  return undefined;
}

function paramsOf(route: Route, values: readonly string[], tail: string | undefined): Record<string, string> {
  const params: Record<string, string> = {};
  let index = 0;
  for (const [, name = '', pattern] of route.path.matchAll(/\{(\w+)(:\.\*)?\}/g)) {
    params[name] = (pattern === undefined ? values[index++] : tail) ?? '';
  }
  return params;
}
